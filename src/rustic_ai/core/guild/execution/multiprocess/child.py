"""What an agent's process runs. Imports no engine, no command, nothing it does not need."""

from __future__ import annotations

import faulthandler
import logging
import os
import pickle
import signal
import socket
import sys
import threading
import time
import traceback
from typing import BinaryIO

from rustic_ai.core.guild.execution.host import AgentHost, AgentLaunch
from rustic_ai.core.guild.execution.multiprocess.boot import BootHeader, read_boot_header
from rustic_ai.core.guild.execution.multiprocess.channel import Channel, Failed, Ready, Stop
from rustic_ai.core.messaging.core.messaging_config import MessagingConfig
from rustic_ai.core.messaging.core.messaging_interface import MessagingInterface
from rustic_ai.core.messaging.core.stop_signal import StopSignal

logger = logging.getLogger(__name__)

EXIT_START_FAILED = 70
"""EX_SOFTWARE of sysexits.h: the agent could not be built."""
EXIT_MESSAGING_LOST = 69
"""EX_UNAVAILABLE of sysexits.h: the agent cannot go on without its messages."""


def main(boot: BinaryIO, control_fd: int) -> None:
    """Run one agent until it is told to stop, its engine is gone, or it fails."""
    os.set_inheritable(control_fd, False)
    channel = Channel(socket.socket(fileno=control_fd))
    stop = StopSignal()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the program, which then asks us
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    with boot:
        header = read_boot_header(boot)
        _configure_logging(header)
        threading.Thread(
            target=_obey, args=(channel, stop, header.orphan_grace), name="control", daemon=True
        ).start()
        try:
            if header.main is not None:
                header.main.install()
            launch: AgentLaunch = pickle.load(boot)
            config: MessagingConfig = pickle.load(boot)
        except BaseException as e:  # noqa: BLE001 - reported to the engine, whatever it is
            _report_failure(channel, e)
            sys.exit(_exit_code(e))
    sys.exit(_run(launch, config, channel, stop))


def _run(launch: AgentLaunch, config: MessagingConfig, channel: Channel, stop: StopSignal) -> int:
    messaging: MessagingInterface | None = None
    try:
        messaging = MessagingInterface(launch.guild_id, config)
        host = AgentHost(launch, messaging)
        host.start()
    except BaseException as e:  # noqa: BLE001 - reported to the engine, whatever it is
        _report_failure(channel, e)
        if messaging is not None:
            messaging.close()
        return _exit_code(e)
    channel.send(Ready())
    try:
        messaging.serve(stop)
    except Exception as e:
        logger.exception("the agent cannot go on")
        _report_failure(channel, e)
        return EXIT_MESSAGING_LOST
    host.stop()
    messaging.close()
    return 0


def _obey(channel: Channel, stop: StopSignal, orphan_grace: float) -> None:
    """Carry out what the engine says; leave when it is gone."""
    while (messages := channel.receive()) is not None:
        if any(isinstance(message, Stop) for message in messages):
            stop.set()
    stop.set()
    # The watchdog is C: it ends the process even if no Python thread gets to run again.
    faulthandler.dump_traceback_later(orphan_grace + 0.5, exit=True)
    time.sleep(orphan_grace)
    os.killpg(0, signal.SIGKILL)


def _exit_code(error: BaseException) -> int:
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) and error.code else EXIT_START_FAILED
    return EXIT_START_FAILED


def _report_failure(channel: Channel, error: BaseException) -> None:
    text = "".join(traceback.format_exception(error))
    channel.send(Failed(type(error).__name__, str(error), text, _pickled(error)))


def _pickled(error: BaseException) -> bytes | None:
    try:
        data = pickle.dumps(error)
        pickle.loads(data)  # many exceptions pickle and then do not load
    except Exception:  # noqa: BLE001 - then its text has to do
        return None
    return data


def _configure_logging(header: BootHeader) -> None:
    logging.basicConfig(
        level=header.log_level,
        format=f"[{header.agent_name} {os.getpid()}] %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
