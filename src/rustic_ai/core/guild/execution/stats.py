"""What an engine says about its agents: frozen values, as dicts where the specification wants."""

from __future__ import annotations

import signal
import textwrap
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any


class AgentState(StrEnum):
    """Where an agent is in its life; supervisord's words."""

    STOPPED = "STOPPED"
    """Ended because it was asked to."""
    STARTING = "STARTING"
    RUNNING = "RUNNING"
    STOPPING = "STOPPING"
    EXITED = "EXITED"
    """Ended by itself, and is not started again."""
    BACKOFF = "BACKOFF"
    """Ended by itself, and is started again soon."""
    FATAL = "FATAL"
    """Ended too often: its restart policy has given up."""

    @property
    def is_live(self) -> bool:
        """Whether a process stands behind it, or soon will: it counts against the limit."""
        return self in _LIVE

    @property
    def number(self) -> int:
        """Its number in the shared table."""
        return _NUMBERED.index(self)

    @classmethod
    def of_number(cls, number: int) -> AgentState:
        """Return the state of a number."""
        return _NUMBERED[number]


_NUMBERED = tuple(AgentState)
_LIVE = frozenset(
    {AgentState.STARTING, AgentState.RUNNING, AgentState.STOPPING, AgentState.BACKOFF}
)


def signal_name(exitcode: int) -> str:
    """Return the name of the signal that a negative exit code stands for; empty for others."""
    if exitcode >= 0:
        return ""
    try:
        return signal.Signals(-exitcode).name
    except ValueError:
        return f"signal {-exitcode}"


@dataclass(frozen=True, slots=True)
class ExitReport:
    """How one process of an agent ended.

    `exitcode` is negative for a signal, as in `subprocess`; None where nobody knows. `requested`
    says whether its end was asked for. Memory is the peak of the process in MB, CPU time in
    seconds, both from the kernel.
    """

    agent_id: str
    agent_name: str
    exitcode: int | None
    reason: str
    requested: bool
    lived: float
    """Seconds from launch to end."""
    peak_memory_mb: float | None = None
    cpu_seconds: float | None = None
    guild_id: str = ""
    generation: int = 1
    """The how-manieth process of the agent it was."""
    pid: int | None = None
    message_id: int | None = None
    """The message in hand."""
    stacks: str = ""
    """Of all threads, at a crash or when it was killed for hanging."""
    last_lines: str = ""
    """The end of its standard error."""
    traceback: str = ""
    """Of the exception that it told of."""
    was_ready: bool = True
    """Whether the agent had ever been ready; False: its first start failed."""
    restart_in: float | None = None
    """Seconds until it is started again; None: it is not."""
    gave_up: bool = False
    """Whether its restart policy has just given up."""

    @property
    def signal(self) -> str:
        """Name of the signal that ended it; empty where none did."""
        return signal_name(self.exitcode) if self.exitcode is not None else ""

    @property
    def failed(self) -> bool:
        """Whether it ended by itself, and not well."""
        return not self.requested and self.exitcode != 0

    @property
    def is_final(self) -> bool:
        """Whether the agent stays down."""
        return self.restart_in is None

    def __str__(self) -> str:
        text = f"agent {self.agent_name!r} {self.reason} after {self.lived:.1f} s"
        if self.message_id is not None:
            text += f", handling message {self.message_id}"
        if self.restart_in is not None:
            text += f"; starting again in {self.restart_in:.1f} s"
        elif self.gave_up:
            text += "; too many restarts, given up"
        return text

    def details(self) -> str:
        """Return all there is to know, in several lines, for a log."""
        facts = [f"pid {self.pid}", f"process {self.generation} of this agent"]
        if self.peak_memory_mb is not None:
            facts.append(f"peak memory {self.peak_memory_mb:.0f} MB")
        if self.cpu_seconds is not None:
            facts.append(f"CPU time {self.cpu_seconds:.2f} s")
        text = f"{self}\n  {', '.join(facts)}"
        for title, body in (
            ("it said", self.traceback),
            ("stacks", self.stacks),
            ("last lines of its standard error", self.last_lines),
        ):
            if body:
                text += f"\n  {title}:\n" + textwrap.indent(body.rstrip(), "    ")
        return text


@dataclass(frozen=True, slots=True)
class AgentEvent:
    """A change of an agent's state."""

    guild_id: str
    agent_id: str
    agent_name: str
    state: AgentState
    generation: int
    pid: int | None
    time: float
    """Seconds since the epoch."""
    report: ExitReport | None = None
    """Where a process has just ended: how."""


@dataclass(frozen=True, slots=True)
class ProcessInfo:
    """One agent's process as `get_process_info` tells it; memory in MB (resident), time in s."""

    pid: int | None
    is_alive: bool
    name: str
    status: AgentState
    exitcode: int | None = None
    memory_mb: float | None = None
    uptime: float | None = None
    last_exit: ExitReport | None = None
    generation: int = 1
    restarts: int = 0
    heartbeat_age: float | None = None
    """Since its process last showed that Python code runs in it."""
    busy_for: float | None = None
    """Since the handler that runs began; None: it is idle."""
    message_id: int | None = None
    """What that handler works on."""
    handled: int | None = None
    """Messages that this process has handled."""
    errors: int | None = None
    """Handlers that failed in this process."""

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
    states: dict[str, int] = field(default_factory=dict)
    """How many agents are in which state."""
    restarts: int = 0
    """Restarts of all listed agents."""

    def as_dict(self) -> dict[str, Any]:
        """Return it as the dict of the specification."""
        return asdict(self)
