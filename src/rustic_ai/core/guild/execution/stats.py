"""What an engine says about its agents: frozen values, as dicts where the specification wants."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class AgentState(StrEnum):
    """Where an agent is in its life; supervisord's words."""

    STARTING = "STARTING"
    RUNNING = "RUNNING"
    STOPPING = "STOPPING"
    EXITED = "EXITED"

    @property
    def is_live(self) -> bool:
        """Whether a process stands behind it, and counts against the limit."""
        return self in {AgentState.STARTING, AgentState.RUNNING, AgentState.STOPPING}


@dataclass(frozen=True, slots=True)
class ExitReport:
    """How an agent ended.

    `exitcode` is negative for a signal, as in `subprocess`; None where there was no process.
    `requested` says whether its end was asked for. Memory is the peak of the process in MB, CPU
    time in seconds, both from the kernel.
    """

    agent_id: str
    agent_name: str
    exitcode: int | None
    reason: str
    requested: bool
    lived: float
    peak_memory_mb: float | None = None
    cpu_seconds: float | None = None

    @property
    def failed(self) -> bool:
        """Whether it ended by itself, and not well."""
        return not self.requested and self.exitcode != 0

    def __str__(self) -> str:
        return f"agent {self.agent_name!r} {self.reason} after {self.lived:.1f} s"


@dataclass(frozen=True, slots=True)
class ProcessInfo:
    """One agent's process as `get_process_info` tells it; memory in MB (resident)."""

    pid: int | None
    is_alive: bool
    name: str
    status: AgentState
    exitcode: int | None = None
    memory_mb: float | None = None
    uptime: float | None = None
    last_exit: ExitReport | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return it as the dict of the specification; `last_exit` as text."""
        facts = {name: getattr(self, name) for name in self.__slots__}
        facts["status"] = str(self.status)
        facts["last_exit"] = str(self.last_exit) if self.last_exit else None
        return facts


@dataclass(frozen=True, slots=True)
class EngineStats:
    """An engine's numbers as `get_engine_stats` tells them."""

    engine_type: str
    guild_id: str
    max_processes: int | None
    total_agents: int
    """Agents that are listed, dead ones included."""
    alive_agents: int
    total_guilds: int
    active_processes: int
    """Agent processes that exist now, those that start or stop included."""
    owned_agents_count: int
    """Agents whose process runs."""

    def as_dict(self) -> dict[str, Any]:
        """Return it as the dict of the specification."""
        return asdict(self)
