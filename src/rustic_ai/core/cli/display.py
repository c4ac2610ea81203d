"""What `run` shows on standard error: live on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, Protocol, Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.table import Table

from rustic_ai.core.guild.spec import AgentSpec
from rustic_ai.core.guild.system_messages import ProgressReport
from rustic_ai.core.messaging.core.message import AgentTag

ProcessInfo = Callable[[str], dict[str, Any]]


class Display(Protocol):
    """Shows a guild at work; used as a context manager."""

    def __enter__(self) -> Self:
        """Begin to show."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leave the terminal as it was."""

    def starting(self, agent: AgentSpec) -> None:
        """Show that an agent is being started."""

    def started(self, agent: AgentSpec) -> None:
        """Show that it is ready."""

    def progress(self, report: ProgressReport, sender: AgentTag) -> None:
        """Show how far the guild's work is."""

    def say(self, text: str) -> None:
        """Show a line."""


class PlainDisplay:
    """A line for each thing that happens; progress at every tenth."""

    def __init__(self, console: Console, info: ProcessInfo, *, quiet: bool = False) -> None:
        self._console = console
        self._info = info
        self._quiet = quiet
        self._tenths = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Nothing to leave."""

    def starting(self, agent: AgentSpec) -> None:
        """Stay silent: the next line says that it is ready, or why not."""

    def started(self, agent: AgentSpec) -> None:
        """Say that it is ready, and where."""
        self.say(f"agent {agent.name} ready (pid {self._info(agent.id).get('pid')})")

    def progress(self, report: ProgressReport, sender: AgentTag) -> None:
        """Say it where a tenth more is done, or the total is not known."""
        if report.total:
            tenths = int(10 * report.done / report.total)
            if tenths == self._tenths:
                return
            self._tenths = tenths
            self.say(f"{report.done:g} of {report.total:g} {report.note}".rstrip())
        else:
            self.say(f"{sender.name}: {report.done:g} {report.note}".rstrip())

    def say(self, text: str) -> None:
        """Print a line, unless told to be quiet."""
        if not self._quiet:
            self._console.print(text, highlight=False, markup=False, soft_wrap=True)


class LiveDisplay:
    """One line per agent that is kept up to date, and a progress bar."""

    def __init__(self, console: Console, info: ProcessInfo) -> None:
        self._console = console
        self._info = info
        self._agents: dict[str, AgentSpec] = {}
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), console=console
        )
        self._task: TaskID | None = None
        self._live = Live(console=console, get_renderable=self._render, transient=False)

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._live.__exit__(kind, error, traceback)

    def _render(self) -> Group:
        table = Table(box=None, pad_edge=False)
        for heading in ("agent", "state", "pid", "memory"):
            table.add_column(heading, justify="left" if heading in {"agent", "state"} else "right")
        for agent in list(self._agents.values()):
            info = self._info(agent.id)
            memory = info.get("memory_mb")
            table.add_row(
                agent.name,
                str(info.get("status", "STARTING")).lower(),
                str(info.get("pid") or ""),
                f"{memory:.0f} MB" if memory else "",
            )
        return Group(table, self._bar) if self._task is not None else Group(table)

    def starting(self, agent: AgentSpec) -> None:
        """Add its line."""
        self._agents[agent.id] = agent

    def started(self, agent: AgentSpec) -> None:
        """Its line shows the state at the next refresh."""

    def progress(self, report: ProgressReport, sender: AgentTag) -> None:
        """Move the bar."""
        if self._task is None:
            self._task = self._bar.add_task("", total=None)
        note = report.note or str(sender.name)
        self._bar.update(self._task, completed=report.done, total=report.total, description=note)

    def say(self, text: str) -> None:
        """Print a line above the table."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)
