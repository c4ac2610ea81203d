"""What an engine runs on once it has an agent: reactor, launcher, supervisor, and their threads."""

from __future__ import annotations

import os
import sys
import weakref
from collections.abc import Callable

from rustic_ai.core.guild.execution.multiprocess.launchers import Launcher, SpawnLauncher
from rustic_ai.core.guild.execution.multiprocess.log_receiver import LogReceiver
from rustic_ai.core.guild.execution.multiprocess.nursery_launcher import NurseryLauncher
from rustic_ai.core.guild.execution.multiprocess.nursery_process import (
    NurseryProcess,
    NurserySettings,
)
from rustic_ai.core.guild.execution.multiprocess.supervisor import (
    ProcessSupervisor,
    SupervisorSettings,
)
from rustic_ai.core.guild.execution.multiprocess.table import SharedTable
from rustic_ai.core.guild.execution.stats import AgentEvent
from rustic_ai.core.guild.execution.supervision.event_thread import EventThread
from rustic_ai.core.guild.execution.supervision.reactor import Reactor


class LaunchPad:
    """A launcher in the making: the nursery warms up while the program does other things.

    Let go of without having been used, it ends the nursery.
    """

    def __init__(self, settings: NurserySettings) -> None:
        self._settings = settings
        self._lifeline: tuple[int, int] | None = None
        self._nursery: NurseryProcess | None = None
        if sys.platform == "linux":
            self._lifeline = os.pipe()
            self._nursery = NurseryProcess(settings, self._lifeline)
            self._abandon = weakref.finalize(self, _abandon, self._nursery, self._lifeline)
            self._abandon.atexit = False  # the nursery sees the end of the program itself

    def launcher(self, reactor: Reactor) -> Launcher:
        """Return the launcher, which owns the nursery from now on."""
        settings = self._settings
        if self._nursery is None or self._lifeline is None:
            return SpawnLauncher(reactor, settings.guild_id, settings.table, settings.logs)
        self._abandon.detach()
        return NurseryLauncher(reactor, settings, self._nursery, self._lifeline)

    def close(self) -> None:
        """End a nursery that was not used."""
        if self._nursery is not None:
            self._abandon()


def _abandon(nursery: NurseryProcess, lifeline: tuple[int, int]) -> None:
    nursery.kill()
    for fd in lifeline:
        os.close(fd)


class Runtime:
    """Runs from construction to `close`.

    Args:
        name: shown in the names of threads.
        pad: gives the launcher.
        table: where states are published.
        settings: how agents are looked after.
        logs: receives agents' log records; None: nobody does.
        tell: called with every change of state, on a thread of its own.
    """

    def __init__(
        self,
        name: str,
        pad: LaunchPad,
        table: SharedTable,
        settings: SupervisorSettings,
        logs: LogReceiver | None,
        tell: Callable[[AgentEvent], None],
    ) -> None:
        self._logs = logs
        if logs is not None:
            logs.start()
        self.reactor = Reactor(name)
        self.launcher = pad.launcher(self.reactor)
        self._events = EventThread(name, tell)
        self.supervisor = ProcessSupervisor(
            self.reactor, self.launcher, table, settings, self._events.put
        )

    def close(self) -> None:
        """End everything; all agents have ended."""
        self.reactor.call(self.launcher.close)
        self.reactor.close()
        self._events.close()
        if self._logs is not None:
            self._logs.close()
