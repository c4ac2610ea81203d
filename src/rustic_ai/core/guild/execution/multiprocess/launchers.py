"""Ways to make an agent's process: what they have in common, and a fresh interpreter for each."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from rustic_ai.core.guild.execution.multiprocess.handover import Handover, marks_of
from rustic_ai.core.guild.execution.multiprocess.nursery import BOOTSTRAP, python_command
from rustic_ai.core.guild.execution.supervision.reactor import Reactor


@dataclass(frozen=True, slots=True)
class Ending:
    """How a process ended: negative exit code for a signal; None for what nobody knows.

    `trouble` says what stood in the way where there never was a process, or its end was not seen;
    `lost` that only the nursery ended, so that a second try makes sense.
    """

    exitcode: int | None
    peak_memory_mb: float | None = None
    cpu_seconds: float | None = None
    trouble: str = ""
    lost: bool = False


@dataclass(frozen=True, slots=True)
class Errand:
    """A process that is wanted; the descriptors are lent for the time of `Launcher.start`."""

    agent_name: str
    slot: int
    environment: Mapping[str, str]
    boot: int
    control: int
    crash: int


class ProcessWatcher(Protocol):
    """Is told what becomes of a process; on the reactor's thread."""

    def process_started(self) -> None:
        """It exists, and `pid` is known."""

    def process_ended(self, ending: Ending) -> None:
        """It has ended, or could not be started. Called once."""


class AgentProcess(Protocol):
    """A process that was asked for."""

    @property
    def pid(self) -> int | None:
        """Its pid; None until it exists."""

    def signal(self, number: signal.Signals, *, group: bool = True) -> None:
        """Send a signal to the process and whatever it has started in its group, or it alone."""

    def give_up(self) -> None:
        """Stop waiting for its end, which cannot be brought about."""


class Launcher(Protocol):
    """Makes agent processes; used on the reactor's thread only, but for construction."""

    max_starting: int
    """How many agents should start at the same time."""

    def start(self, errand: Errand, watcher: ProcessWatcher) -> AgentProcess:
        """Ask for a process; the watcher is told the rest."""

    def close(self) -> None:
        """Give everything back; all processes have ended."""


class SpawnLauncher:
    """Starts a fresh interpreter as a child of this program, on any POSIX system.

    Args:
        reactor: watches the processes.
        guild_id: shown in the arguments of the processes.
        table: descriptor of the shared table.
        logs: descriptor of the socket that records are sent on, or -1.
    """

    def __init__(self, reactor: Reactor, guild_id: str, table: int, logs: int) -> None:
        self.max_starting = 2 * (os.cpu_count() or 1)
        self._reactor = reactor
        self._guild_id = guild_id
        self._table = table
        self._logs = logs

    def start(self, errand: Errand, watcher: ProcessWatcher) -> AgentProcess:
        """Start an interpreter that runs `child.main`."""
        handover = Handover(
            errand.boot, errand.control, errand.crash, self._table, errand.slot, -1, self._logs
        )
        title = f"rustic-agent:{errand.agent_name}"
        command = python_command(
            BOOTSTRAP.format(handover=tuple(handover)),
            title,
            *marks_of(self._guild_id, self._table),
        )
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            pass_fds=handover.descriptors(),
            env=errand.environment,
            start_new_session=True,
        )
        spawned = _SpawnedProcess(process, watcher, self._reactor)
        self._reactor.post(watcher.process_started)
        return spawned

    def close(self) -> None:
        """Do nothing: nothing is held."""


class _SpawnedProcess:
    """A child of ours: its pid stays its own until it is reaped, so signals hit no stranger."""

    def __init__(
        self, process: subprocess.Popen[bytes], watcher: ProcessWatcher, reactor: Reactor
    ) -> None:
        self.pid = process.pid
        self._process = process
        self._watcher = watcher
        self._reactor = reactor
        self._sentinel = _open_sentinel(self.pid)
        self._ended = False
        reactor.watch(self, self._reap)

    def fileno(self) -> int:
        """Return the sentinel: a descriptor that is readable once the process has ended."""
        return self._sentinel

    def signal(self, number: signal.Signals, *, group: bool = True) -> None:
        """Send a signal."""
        if not self._ended:
            with contextlib.suppress(ProcessLookupError, PermissionError):  # EPERM: macOS, ended
                (os.killpg if group else os.kill)(self.pid, number)

    def _reap(self) -> None:
        self.signal(signal.SIGKILL)  # what it left; the dead leader still holds pid and group
        _, status, usage = os.wait4(self.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        self._process.returncode = code  # collected by us: Popen need not look for it
        unit = 1 if sys.platform == "darwin" else 1024
        self._let_go()
        self._watcher.process_ended(
            Ending(code, usage.ru_maxrss * unit / 1e6, usage.ru_utime + usage.ru_stime)
        )

    def give_up(self) -> None:
        """Stop waiting."""
        self._let_go()
        self._watcher.process_ended(Ending(None, trouble="did not end after SIGKILL"))

    def _let_go(self) -> None:
        self._ended = True
        self._reactor.unwatch(self)
        os.close(self._sentinel)


def _open_sentinel(pid: int) -> int:
    if hasattr(os, "pidfd_open"):
        return os.pidfd_open(pid)
    reader, writer = os.pipe()

    def wait_for_end() -> None:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        os.close(writer)

    threading.Thread(target=wait_for_end, name=f"rustic-wait-{pid}", daemon=True).start()
    return reader


def control_pair() -> tuple[socket.socket, socket.socket]:
    """Return the engine's end, non-blocking, and the agent's."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    return ours, theirs
