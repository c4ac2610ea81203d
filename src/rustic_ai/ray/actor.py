"""What runs in a Ray worker: one agent, and what can be asked of it meanwhile."""

from __future__ import annotations

import logging
import os
import pickle
import random
import resource
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

import psutil

from rustic_ai.core.guild.execution.host import AgentHost, AgentLaunch
from rustic_ai.core.guild.execution.multiprocess.channel import Failed
from rustic_ai.core.guild.execution.multiprocess.limits import apply_limits
from rustic_ai.core.guild.supervision import ResourceLimits
from rustic_ai.core.messaging.core.messaging_config import MessagingConfig
from rustic_ai.core.messaging.core.messaging_interface import MessagingInterface
from rustic_ai.core.messaging.core.stop_signal import StopSignal
from rustic_ai.core.settings import RUNTIME_DIR_VARIABLE
from rustic_ai.ray.installed import import_ray, machine
from rustic_ai.ray.order import Order, Outcome, Started

logger = logging.getLogger(__name__)

EXIT_START_FAILED = 70
"""EX_SOFTWARE of sysexits.h: the agent could not be built."""
EXIT_MESSAGING_LOST = 69
"""EX_UNAVAILABLE of sysexits.h: the agent cannot go on without its messages."""
CONCURRENCY_GROUPS = {"control": 1, "sentinel": 1, "memory": 1}
"""Threads of their own for what is asked while the agent works."""
_MEMORY_PERIOD = 0.25
_AGE_JITTER = 0.1


class ActorPulse:
    """Counts what an agent does, and lets it retire between two messages.

    Args:
        stop: what ends its service.
        max_messages: after which it retires.
    """

    def __init__(self, stop: StopSignal, max_messages: int | None) -> None:
        self._stop = stop
        self._max = max_messages
        self.handled = self.errors = 0
        self.message_id: int | None = None
        self.busy_since: float | None = None
        self.retiring = ""

    def begin(self, message_id: int) -> None:
        """A message is being handled."""
        self.message_id = message_id
        self.busy_since = time.monotonic()

    def end(self, errors: int) -> None:
        """It has been."""
        self.message_id = self.busy_since = None
        self.handled += 1
        self.errors += errors
        if self._max is not None and self.handled >= self._max:
            self.retire(f"it has handled {self.handled} messages")

    def retire(self, reason: str) -> None:
        """End between two messages, for a fresh process to take over."""
        if not self._stop.is_set():
            self.retiring = reason
            self._stop.set()

    def facts(self) -> dict[str, Any]:
        """Return fields of `ProcessInfo`."""
        since = self.busy_since
        return {
            "heartbeat_age": 0.0,  # it answers
            "busy_for": None if since is None else time.monotonic() - since,
            "message_id": self.message_id,
            "handled": self.handled,
            "errors": self.errors,
        }


class AgentActor:
    """One agent: `start`, then `live` until it ends; the rest is asked beside that."""

    def __init__(self) -> None:
        self._stop = StopSignal()
        self._pulse = ActorPulse(self._stop, None)
        self._host: AgentHost | None = None
        self._messaging: MessagingInterface | None = None
        self._retirement: threading.Timer | None = None

    def start(self, order: Order) -> Started | Outcome:
        """Build the agent, subscribe it, run its `on_start`; returns when it is ready, or why not.

        Args:
            order: the agent.
        """
        try:
            _settle(order)
            limits = ResourceLimits.model_validate(order.limits)
            apply_limits(limits)
            self._pulse = ActorPulse(self._stop, limits.max_messages)
            launch: AgentLaunch = pickle.loads(order.launch)
            config: MessagingConfig = pickle.loads(order.messaging)
            self._messaging = MessagingInterface(launch.guild_id, config)
            self._host = AgentHost(launch, self._messaging, self._pulse)
            self._host.start()
        except BaseException as e:  # noqa: BLE001 - reported to the engine, whatever it is
            if self._messaging is not None:
                self._messaging.close()
            return self._outcome(_exit_code(e, 0) or EXIT_START_FAILED, e)
        self._plan_retirement(limits.max_age)
        return _here()

    def live(self) -> Outcome:
        """Serve messages until `stop`, and then run `on_stop`; or until the agent gives up."""
        assert self._messaging is not None
        assert self._host is not None
        try:
            self._messaging.serve(self._stop)
        except SystemExit as e:  # a handler ended its process: the engine ends it
            return self._outcome(_exit_code(e, 1))
        except BaseException as e:
            logger.exception("the agent cannot go on")
            return self._outcome(EXIT_MESSAGING_LOST, e)
        if self._retirement is not None:
            self._retirement.cancel()
        self._host.stop()
        self._messaging.close()
        return self._outcome(0)

    def stop(self) -> None:
        """Have `live` finish the message in hand and end."""
        self._stop.set()

    def look(self) -> dict[str, Any]:
        """Return fields of `ProcessInfo`."""
        return {"memory_mb": psutil.Process().memory_info().rss / 1e6, **self._pulse.facts()}

    def hold(self) -> None:
        """Never return: whoever waits for it learns of the end of this process."""
        threading.Event().wait()

    def watch_memory(self, limit: int) -> str:
        """Return a word once this process uses more than so many bytes."""
        process = psutil.Process()
        pause = threading.Event()
        while (used := process.memory_info().rss) <= limit:
            pause.wait(_MEMORY_PERIOD)
        return f"it used {used / 1e6:.0f} MB, its limit is {limit / 1e6:.0f} MB"

    def _plan_retirement(self, max_age: float | None) -> None:
        if max_age is None:
            return
        age = max_age * random.uniform(1 - _AGE_JITTER, 1 + _AGE_JITTER)  # noqa: S311 - spreads
        reason = f"it has lived for {max_age:g} s"
        self._retirement = threading.Timer(age, self._pulse.retire, [reason])
        self._retirement.name = "rustic-retirement"
        self._retirement.daemon = True
        self._retirement.start()

    def _outcome(self, exitcode: int, error: BaseException | None = None) -> Outcome:
        used = resource.getrusage(resource.RUSAGE_SELF)
        return Outcome(
            exitcode,
            None if error is None else _failed(error),
            self._pulse.retiring,
            self._pulse.message_id,
            used.ru_maxrss * 1024 / 1e6,
            used.ru_utime + used.ru_stime,
        )


def _settle(order: Order) -> None:
    """Let this worker find what the program finds, where it is there; before anything of it."""
    known = set(sys.path)
    sys.path += [path for path in order.sys_path if path not in known and Path(path).exists()]
    if RUNTIME_DIR_VARIABLE not in os.environ and Path(order.runtime_dir).is_dir():
        os.environ[RUNTIME_DIR_VARIABLE] = order.runtime_dir
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(order.log_level)


def _here() -> Started:
    ray = import_ray()
    node = ray.get_runtime_context().get_node_id()
    return Started(os.getpid(), node, ray.util.get_node_ip_address(), machine())


def _exit_code(error: BaseException, otherwise: int) -> int:
    """Return the code that an interpreter would end with."""
    if not isinstance(error, SystemExit):
        return otherwise
    if error.code is None:
        return 0
    if isinstance(error.code, int):
        return error.code
    print(error.code, file=sys.stderr)  # noqa: T201 - as the interpreter does
    return 1


def _failed(error: BaseException) -> Failed:
    text = "".join(traceback.format_exception(error))
    try:
        exception: bytes | None = pickle.dumps(error)
        pickle.loads(pickle.dumps(error))  # many exceptions pickle and then do not load
    except Exception:  # noqa: BLE001 - then its text has to do
        exception = None
    return Failed(type(error).__name__, str(error), text, exception)
