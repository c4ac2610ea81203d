"""What an agent's process runs. Imports no engine, no command, nothing it does not need."""

from __future__ import annotations

import atexit
import faulthandler
import logging
import os
import pickle
import random
import select
import signal
import socket
import sys
import tempfile
import threading
import time
import traceback
from typing import Any, BinaryIO, NoReturn

from rustic_ai.core.guild.execution.host import AgentHost, AgentLaunch
from rustic_ai.core.guild.execution.multiprocess.boot import BootHeader, read_boot_header
from rustic_ai.core.guild.execution.multiprocess.channel import (
    Channel,
    Failed,
    Ready,
    Retiring,
    Stop,
)
from rustic_ai.core.guild.execution.multiprocess.crash_file import write_stacks_to
from rustic_ai.core.guild.execution.multiprocess.handover import Handover, arm_lifeline
from rustic_ai.core.guild.execution.multiprocess.limits import apply_limits
from rustic_ai.core.guild.execution.multiprocess.log_sender import LogSender
from rustic_ai.core.guild.execution.multiprocess.output import attribute_output, finish_output
from rustic_ai.core.guild.execution.multiprocess.pulse import TablePulse
from rustic_ai.core.guild.execution.multiprocess.table import SharedTable
from rustic_ai.core.guild.supervision import ResourceLimits
from rustic_ai.core.messaging.core.messaging_config import MessagingConfig
from rustic_ai.core.messaging.core.messaging_interface import MessagingInterface
from rustic_ai.core.messaging.core.stop_signal import StopSignal

logger = logging.getLogger(__name__)

EXIT_START_FAILED = 70
"""EX_SOFTWARE of sysexits.h: the agent could not be built."""
EXIT_MESSAGING_LOST = 69
"""EX_UNAVAILABLE of sysexits.h: the agent cannot go on without its messages."""
HEARTBEAT = 1.0
"""Seconds between heartbeats."""
_AGE_JITTER = 0.1
_SAY_WHERE_TEMPORARY = ("TMPDIR", "TEMP", "TMP")


def main(boot: BinaryIO, handover: tuple[int, ...]) -> NoReturn:
    """Run one agent until it is told to stop, its engine is gone, or it fails."""
    given = Handover(*handover)
    if given.lifeline >= 0:
        arm_lifeline(given.lifeline)
    for fd in given.descriptors():
        if fd != given.lifeline:
            os.set_inheritable(fd, False)
    write_stacks_to(given.crash)
    channel = Channel(socket.socket(fileno=given.control))
    stop = StopSignal()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the program, which then asks us
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    life = _Life(channel, stop, TablePulse(SharedTable(given.table, writable=True), given.slot))
    try:
        code = life.live(boot, given)
    except SystemExit as e:
        code = _exit_code(e)
    except BaseException:  # noqa: BLE001 - told as the interpreter would, whatever it is
        traceback.print_exc()
        code = 1
    _leave(code, with_group=life.is_orphaned)


class _Life:
    """One process of an agent, from boot to end."""

    def __init__(self, channel: Channel, stop: StopSignal, pulse: TablePulse) -> None:
        self._channel = channel
        self._stop = stop
        self._pulse = pulse
        self.is_orphaned = False
        self._orphan_grace = 0.0
        self._limits = ResourceLimits()
        self._dies_at: float | None = None

    def live(self, boot: BinaryIO, given: Handover) -> int:
        """Boot, start, serve, stop; returns the exit code."""
        try:
            with boot:
                surroundings, header = read_boot_header(boot)
                self._begin(surroundings, header, given)
                launch: AgentLaunch = pickle.load(boot)
                config: MessagingConfig = pickle.load(boot)
        except BaseException as e:  # noqa: BLE001 - reported to the engine, whatever it is
            return self._fail(e)
        return self._run(launch, config)

    def _begin(self, around: dict[str, Any], header: BootHeader, given: Handover) -> None:
        attribute_output(header.agent_name, given.crash)
        _configure_logging(header, given.logs)
        self._orphan_grace = header.orphan_grace
        self._limits = ResourceLimits.model_validate(header.limits)
        _move_to(around, header)
        apply_limits(self._limits)
        if self._limits.max_age is not None:
            age = self._limits.max_age * random.uniform(  # noqa: S311 - spreads work
                1 - _AGE_JITTER, 1 + _AGE_JITTER
            )
            self._dies_at = time.monotonic() + age
        threading.Thread(target=self._obey, name="control", daemon=True).start()
        if header.main is not None:
            header.main.install()

    def _run(self, launch: AgentLaunch, config: MessagingConfig) -> int:
        messaging: MessagingInterface | None = None
        try:
            messaging = MessagingInterface(launch.guild_id, config)
            retires = self._limits.max_messages is not None
            pulse = _RetiringPulse(self, self._pulse) if retires else self._pulse
            host = AgentHost(launch, messaging, pulse)
            host.start()
        except BaseException as e:  # noqa: BLE001 - reported to the engine, whatever it is
            code = self._fail(e)
            if messaging is not None:
                messaging.close()
            return code
        self._channel.send(Ready())
        try:
            messaging.serve(self._stop)
        except Exception as e:
            logger.exception("the agent cannot go on")
            self._report(e)
            return EXIT_MESSAGING_LOST
        host.stop()
        messaging.close()
        return 0

    def retire(self, reason: str) -> None:
        """End between two messages, for a fresh process to take over."""
        if not self._stop.is_set():
            self._channel.send(Retiring(reason))
            self._stop.set()

    def served(self, messages: int) -> None:
        """Take note of how many messages were handled."""
        if self._limits.max_messages is not None and messages >= self._limits.max_messages:
            self.retire(f"it has handled {messages} messages")

    def _obey(self) -> None:
        """Beat, and carry out what the engine says; leave when it is gone."""
        waiting = select.poll()
        waiting.register(self._channel, select.POLLIN)
        while True:
            self._pulse.beat()
            if self._dies_at is not None and time.monotonic() >= self._dies_at:
                self._dies_at = None
                self.retire(f"it has lived for {self._limits.max_age:g} s")
            if not waiting.poll(HEARTBEAT * 1000):
                continue
            messages = self._channel.receive()
            if messages is None:
                break
            if any(isinstance(message, Stop) for message in messages):
                self._stop.set()
        self.is_orphaned = True
        self._stop.set()
        # The watchdog is C: it ends the process even if no Python thread gets to run again.
        faulthandler.dump_traceback_later(self._orphan_grace + 0.5, exit=True)
        time.sleep(self._orphan_grace)
        os.killpg(0, signal.SIGKILL)

    def _fail(self, error: BaseException) -> int:
        self._report(error)
        return _exit_code(error) or EXIT_START_FAILED

    def _report(self, error: BaseException) -> None:
        text = "".join(traceback.format_exception(error))
        self._channel.send(Failed(type(error).__name__, str(error), text, _pickled(error)))


class _RetiringPulse:
    """The pulse of an agent that may be replaced after a number of messages."""

    def __init__(self, life: _Life, pulse: TablePulse) -> None:
        self._life = life
        self._pulse = pulse
        self.begin = pulse.begin

    def end(self, errors: int) -> None:
        """Count a message."""
        self._pulse.end(errors)
        self._life.served(self._pulse.handled)


def _move_to(around: dict[str, Any], header: BootHeader) -> None:
    """Take over the surroundings of the moment of launch."""
    environment: dict[str, str] = around["env"]
    present = dict(os.environ)
    if environment != present:
        for gone in present.keys() - environment.keys():
            del os.environ[gone]
        for name, value in environment.items():
            if present.get(name) != value:
                os.environ[name] = value
        if any(environment.get(name) != present.get(name) for name in _SAY_WHERE_TEMPORARY):
            tempfile.tempdir = None  # the nursery has looked for its own
    sys.path[:] = around["sys_path"]
    sys.argv[:] = ["-c", f"rustic-agent:{header.agent_name}"]
    if header.directory is not None:
        os.chdir(header.directory)


def _leave(code: int, *, with_group: bool) -> NoReturn:
    """End as an interpreter does, but for tearing down its memory, which takes long for nothing.

    Args:
        code: the exit code.
        with_group: end the children, too: the engine is gone, and the nursery may be.
    """
    threading._shutdown()  # type: ignore[attr-defined]  # noqa: SLF001 - waits for threads
    atexit._run_exitfuncs()  # noqa: SLF001
    logging.shutdown()  # of a fork, `atexit` does not know about it
    finish_output()
    for stream in (sys.__stdout__, sys.__stderr__):
        if stream is not None:
            try:
                stream.flush()
            except OSError:  # nobody reads it any more
                code = code or 1
    if with_group:
        os.killpg(0, signal.SIGKILL)
    os._exit(code)


def _exit_code(error: BaseException) -> int:
    if isinstance(error, SystemExit):
        if error.code is None or error.code == 0:
            return 0
        if isinstance(error.code, int):
            return error.code
        print(error.code, file=sys.stderr)  # noqa: T201 - as the interpreter does
        return 1
    return EXIT_START_FAILED


def _pickled(error: BaseException) -> bytes | None:
    try:
        data = pickle.dumps(error)
        pickle.loads(data)  # many exceptions pickle and then do not load
    except Exception:  # noqa: BLE001 - then its text has to do
        return None
    return data


def _configure_logging(header: BootHeader, logs: int) -> None:
    root = logging.getLogger()
    if logs >= 0:
        root.addHandler(LogSender(logs, header.agent_name))
    else:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
        root.addHandler(handler)
    if root.level != header.log_level:  # setting it touches every logger there is
        root.setLevel(header.log_level)
