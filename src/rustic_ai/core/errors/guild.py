"""The root of the tree, and errors of specs, dependencies, engines and agents."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, ClassVar


@dataclass(eq=False, kw_only=True, repr=False)
class GuildError(Exception):
    """Root of the tree; subclasses add facts as keyword-only fields."""

    code: ClassVar[str] = "guild"
    summary: str = ""
    hint: str = ""

    def __repr__(self) -> str:
        facts = ", ".join(f"{f.name}={getattr(self, f.name)!r}" for f in fields(self))
        return f"{type(self).__name__}({facts})"

    def __str__(self) -> str:
        text = self.describe()
        return f"{text}\nhint: {self.hint}" if self.hint else text

    def describe(self) -> str:
        """Say what is wrong, without the hint."""
        return self.summary

    def __reduce__(self) -> tuple[Any, ...]:
        facts = {f.name: getattr(self, f.name) for f in fields(self) if f.init}
        extra = {k: v for k, v in self.__dict__.items() if k not in facts}
        return _rebuild, (type(self), facts), extra


def _rebuild(cls: type[GuildError], facts: dict[str, Any]) -> GuildError:
    return cls(**facts)


@dataclass(eq=False, kw_only=True, repr=False)
class SpecError(GuildError, ValueError):
    """A specification is wrong."""

    code: ClassVar[str] = "spec"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong in a spec file; line and column count from 1, 0 where unknown."""

    message: str
    path: str
    line: int = 0
    column: int = 0
    hint: str = ""
    source: str = ""

    def render(self, file: str) -> str:
        """Show the problem with its place, source line and hint."""
        place = f"{file}:{self.line}:{self.column}" if self.line else file
        lines = [f"error: {self.message}", f"  --> {place}"]
        if self.source:
            gutter = str(self.line)
            lines += [
                f"{gutter} | {self.source}",
                f"{' ' * len(gutter)} | {' ' * (self.column - 1)}^",
            ]
        if self.hint:
            lines.append(f"hint: {self.hint}")
        return "\n".join(lines)


@dataclass(eq=False, kw_only=True, repr=False)
class SpecFileError(SpecError):
    """A spec file has problems; all of them are in `problems`."""

    code: ClassVar[str] = "spec-file"
    file: str
    problems: list[Problem] = field(default_factory=list)

    def describe(self) -> str:
        """Render every problem with its place."""
        return "\n\n".join(p.render(self.file) for p in self.problems)


@dataclass(eq=False, kw_only=True, repr=False)
class ClassNotFoundError(SpecError):
    """A class name in a spec leads nowhere, or to something that cannot be used there."""

    code: ClassVar[str] = "class-not-found"
    name: str
    looked_in: list[str] = field(default_factory=list)

    def describe(self) -> str:
        """Name the class and the places that were searched."""
        where = "".join(f"\n  looked in {place}" for place in self.looked_in)
        return f"{self.summary or f'class {self.name!r} was not found'}{where}"


@dataclass(eq=False, kw_only=True, repr=False)
class ImportFailedError(SpecError, ImportError):
    """A module of the user cannot be imported; `place` is the line that failed."""

    code: ClassVar[str] = "import-failed"
    module: str
    reason: str
    place: str = ""

    def describe(self) -> str:
        """Name the module, the reason and the place."""
        where = f" ({self.place})" if self.place else ""
        return f"module {self.module!r} cannot be imported: {self.reason}{where}"


@dataclass(eq=False, kw_only=True, repr=False)
class DependencyError(GuildError, ValueError):
    """The dependencies of an agent cannot be provided."""

    code: ClassVar[str] = "dependency"


@dataclass(eq=False, kw_only=True, repr=False)
class MissingDependencyError(DependencyError):
    """An agent depends on a key that neither it nor its guild defines."""

    code: ClassVar[str] = "dependency-missing"
    key: str
    wanted_by: str
    available: list[str] = field(default_factory=list)

    def describe(self) -> str:
        """Name the key, who wants it and what there is."""
        there = ", ".join(map(repr, self.available)) or "none"
        return f"{self.wanted_by} depends on {self.key!r}, which is not defined (defined: {there})"


@dataclass(eq=False, kw_only=True, repr=False)
class DependencyCycleError(DependencyError):
    """Dependencies need each other in a circle."""

    code: ClassVar[str] = "dependency-cycle"
    path: list[str]

    def describe(self) -> str:
        """Show the circle."""
        return f"dependencies need each other in a circle: {' -> '.join(self.path)}"


@dataclass(eq=False, kw_only=True, repr=False)
class NotPicklableError(GuildError, TypeError):
    """A value cannot travel to another process; `path` leads to the part that cannot."""

    code: ClassVar[str] = "not-picklable"
    path: str
    type_name: str
    agent_name: str = ""
    reason: str = ""

    def describe(self) -> str:
        """Name the agent, the path inside the value and its type."""
        who = (
            f"agent {self.agent_name!r} cannot be sent to its process: " if self.agent_name else ""
        )
        why = f" ({self.reason})" if self.reason else ""
        return f"{who}{self.path} is a {self.type_name}{why}"


@dataclass(eq=False, kw_only=True, repr=False)
class EngineError(GuildError, RuntimeError):
    """An engine cannot do what it was asked."""

    code: ClassVar[str] = "engine"


@dataclass(eq=False, kw_only=True, repr=False)
class ProcessLimitError(EngineError):
    """The engine already runs as many agents as it was allowed to."""

    code: ClassVar[str] = "process-limit"
    guild_id: str
    limit: int
    hint: str = (
        "stop an agent or call cleanup_dead_processes() first, or pass a larger max_processes"
    )

    def describe(self) -> str:
        """Name the limit and the guild."""
        return f"Maximum number of processes ({self.limit}) reached in guild {self.guild_id!r}"


@dataclass(eq=False, kw_only=True, repr=False)
class DuplicateAgentError(EngineError):
    """An agent of this id already runs."""

    code: ClassVar[str] = "agent-exists"
    guild_id: str
    agent_id: str
    hint: str = "stop it first, or give the new agent another id"

    def describe(self) -> str:
        """Name the agent and the guild."""
        return f"agent {self.agent_id!r} already runs in guild {self.guild_id!r}"


@dataclass(eq=False, kw_only=True, repr=False)
class EngineClosedError(EngineError):
    """The engine was shut down."""

    code: ClassVar[str] = "engine-closed"
    guild_id: str
    hint: str = "make a new engine"

    def describe(self) -> str:
        """Name the guild of the engine."""
        return f"the engine of guild {self.guild_id!r} was shut down"


@dataclass(eq=False, kw_only=True, repr=False)
class AgentStartError(EngineError):
    """An agent did not become ready; `remote_traceback` is its own, where it got that far."""

    code: ClassVar[str] = "agent-start"
    agent_id: str
    agent_name: str
    reason: str
    exitcode: int | None = None
    remote_traceback: str = ""

    def describe(self) -> str:
        """Name the agent and the reason, followed by the traceback from its process."""
        text = f"agent {self.agent_name!r} did not start: {self.reason}"
        if self.remote_traceback:
            text += f"\n\nin the agent's process:\n{self.remote_traceback.rstrip()}"
        return text


@dataclass(eq=False, kw_only=True, repr=False)
class AgentError(GuildError, RuntimeError):
    """An agent answered a request with an error."""

    code: ClassVar[str] = "agent-error"
    agent_name: str
    error_type: str
    message: str
    remote_traceback: str = ""

    def describe(self) -> str:
        """Name the agent and its error, followed by its traceback."""
        text = f"agent {self.agent_name!r} failed: {self.error_type}: {self.message}"
        if self.remote_traceback:
            text += f"\n\nin the agent's process:\n{self.remote_traceback.rstrip()}"
        return text


@dataclass(eq=False, kw_only=True, repr=False)
class GuildFailedError(GuildError, RuntimeError):
    """Agents ended before the guild's work was done; `endings` says how, one line each."""

    code: ClassVar[str] = "guild-failed"
    guild_id: str
    endings: list[str]

    def describe(self) -> str:
        """Name the guild and how its agents ended."""
        ends = "".join(f"\n  {ending}" for ending in self.endings)
        return f"guild {self.guild_id!r} cannot finish, an agent has ended:{ends}"


@dataclass(eq=False, kw_only=True, repr=False)
class RequestTimeoutError(GuildError, TimeoutError):
    """What was waited for did not come in time."""

    code: ClassVar[str] = "timeout"
    waited_for: str
    timeout: float

    def describe(self) -> str:
        """Name what was waited for and how long."""
        return f"{self.waited_for} did not come within {self.timeout:g} s"
