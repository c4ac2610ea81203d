"""Who hangs, and who uses too much memory: looked at from outside, and ended with a reason."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil

from rustic_ai.core.guild.execution.multiprocess.table import BEAT, BUSY_SINCE
from rustic_ai.core.guild.execution.stats import AgentState
from rustic_ai.core.guild.execution.supervision.reactor import Reactor

if TYPE_CHECKING:
    from rustic_ai.core.guild.execution.multiprocess.wrapper import MultiProcessAgentWrapper

logger = logging.getLogger(__name__)

_MEMORY_PERIOD = 0.25
_LOOKS_PER_TIMEOUT = 4


@dataclass(frozen=True, slots=True)
class HealthLimits:
    """After how many seconds an agent counts as hanging; None: never.

    `heartbeat` finds processes in which no Python code runs: stopped, or C code that holds the
    GIL. `handler` finds handlers that do not end.
    """

    heartbeat: float | None = 30.0
    handler: float | None = None


class Health:
    """Looks at agents from time to time; on the reactor's thread.

    Args:
        reactor: gives the timers.
        limits: what counts as hanging.
        agents: tells whom to look at.
    """

    def __init__(
        self,
        reactor: Reactor,
        limits: HealthLimits,
        agents: Callable[[], Sequence[MultiProcessAgentWrapper]],
    ) -> None:
        self._reactor = reactor
        self._limits = limits
        self._agents = agents
        self._looks_at_memory = False
        timeouts = [t for t in (limits.heartbeat, limits.handler) if t is not None]
        self._period = min(timeouts) / _LOOKS_PER_TIMEOUT if timeouts else None
        self._due = 0.0
        if self._period is not None:
            reactor.post(self._plan)

    def look_after(self, agent: MultiProcessAgentWrapper) -> None:
        """Watch an agent's memory, where it has a limit."""
        if agent.limits.memory is not None and not self._looks_at_memory:
            self._looks_at_memory = True
            self._reactor.after(_MEMORY_PERIOD, self._look_at_memory)

    def _plan(self) -> None:
        assert self._period is not None
        self._due = time.monotonic() + self._period
        self._reactor.after(self._period, self._look)

    def _look(self) -> None:
        assert self._period is not None
        late = time.monotonic() - self._due
        if late < self._period:  # else everything may have been suspended: they need a moment
            for agent in self._agents():
                why = self._hangs(agent)
                if why and agent.life is not None and not agent.life.is_being_killed:
                    logger.warning("agent %r hangs: %s", agent.spec.name, why)
                    agent.life.kill(why, with_stacks=True)
        self._plan()

    def _hangs(self, agent: MultiProcessAgentWrapper) -> str:
        if agent.state is not AgentState.RUNNING:
            return ""
        cells = agent.place.cells
        now = time.monotonic_ns()
        silent = (now - cells[BEAT]) / 1e9 if cells[BEAT] else 0.0
        busy = (now - cells[BUSY_SINCE]) / 1e9 if cells[BUSY_SINCE] else 0.0
        if self._limits.heartbeat is not None and silent > self._limits.heartbeat:
            return f"no heartbeat for {silent:.1f} s"
        if self._limits.handler is not None and busy > self._limits.handler:
            return f"one message was handled for {busy:.1f} s"
        return ""

    def _look_at_memory(self) -> None:
        watched = [agent for agent in self._agents() if agent.limits.memory is not None]
        for agent in watched:
            life, limit = agent.life, agent.limits.memory
            if life is None or life.pid is None or life.is_being_killed or limit is None:
                continue
            used = _resident(life.pid)
            if used > limit:
                life.kill(f"it used {used / 1e6:.0f} MB, its limit is {limit / 1e6:.0f} MB")
        self._looks_at_memory = bool(watched)
        if watched:
            self._reactor.after(_MEMORY_PERIOD, self._look_at_memory)


def _resident(pid: int) -> int:
    """Return the resident memory of a process in bytes; 0 where it has just ended."""
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0
