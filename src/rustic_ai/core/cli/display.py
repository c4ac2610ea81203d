"""What `run` shows on standard error: live on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.table import Table
from rich.text import Text

from rustic_ai.core.cli.output import relayed
from rustic_ai.core.guild.execution.stats import AgentState
from rustic_ai.core.guild.spec import AgentSpec
from rustic_ai.core.guild.system_messages import ProgressReport
from rustic_ai.core.messaging.core.envelope import AgentTag

ProcessInfo = Callable[[str], dict[str, Any]]

_SECONDS_BETWEEN_LINES = 5.0
"""Of progress whose end is not known."""


class Display(Protocol):
    """Shows a guild at work. `tell` may be called from any thread."""

    def starting(self, agent: AgentSpec) -> None:
        """Show that an agent is being started."""

    def started(self, agent: AgentSpec) -> None:
        """Show that it is ready."""

    def progress(self, report: ProgressReport, sender: AgentTag) -> None:
        """Show how far the guild's work is."""

    def say(self, text: str) -> None:
        """Show a line that tells of the course of things."""

    def tell(self, text: str) -> None:
        """Show a line that everybody has to see."""


@contextmanager
def shown(info: ProcessInfo, *, quiet: bool) -> Iterator[Display]:
    """Give the display that fits standard error; the terminal is as it was afterwards.

    Args:
        info: returns what is known of an agent's process.
        quiet: show only what everybody has to see.
    """
    console = Console(stderr=True)
    if quiet or not os.isatty(2) or console.is_dumb_terminal:
        yield PlainDisplay(console, info, quiet=quiet)
        return
    with os.fdopen(os.dup(2), "w") as terminal:
        live = LiveDisplay(Console(file=terminal), info)
        with live.updated(), relayed(live.show_output):
            yield live


class PlainDisplay:
    """A line for each thing that happens; progress at every tenth."""

    def __init__(self, console: Console, info: ProcessInfo, *, quiet: bool = False) -> None:
        self._console = console
        self._info = info
        self._quiet = quiet
        self._shown: dict[str | None, float] = {}

    def starting(self, agent: AgentSpec) -> None:
        """Stay silent: the next line says that it is ready, or why not."""

    def started(self, agent: AgentSpec) -> None:
        """Say that it is ready, and where."""
        self.say(f"agent {agent.name} ready (pid {self._info(agent.id).get('pid')})")

    def progress(self, report: ProgressReport, sender: AgentTag) -> None:
        """Say it where a tenth more is done, or for long nothing was said."""
        if report.total:
            step, far = float(int(10 * report.done / report.total)), f" of {report.total:g}"
        else:
            step, far = time.monotonic() // _SECONDS_BETWEEN_LINES, ""
        if self._shown.get(sender.id) != step:
            self._shown[sender.id] = step
            self.say(f"{sender.name}: {report.done:g}{far} {report.note}".rstrip())

    def say(self, text: str) -> None:
        """Print a line, unless told to be quiet."""
        if not self._quiet:
            self.tell(text)

    def tell(self, text: str) -> None:
        """Print a line."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)


class LiveDisplay:
    """One line per agent that is kept up to date, and a progress bar for each that reports."""

    def __init__(self, console: Console, info: ProcessInfo) -> None:
        self._console = console
        self._info = info
        self._agents: dict[str, AgentSpec] = {}
        self._seen: dict[str, dict[str, Any]] = {}
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            console=console,
        )
        self._tasks: dict[str | None, TaskID] = {}
        # What is printed comes by `show_output`, so rich need not take sys.stdout and sys.stderr.
        self._live = Live(
            console=console,
            get_renderable=self._render,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    @contextmanager
    def updated(self) -> Iterator[None]:
        """Keep the lines up to date while the block lasts; they stay as they are at its end."""
        with self._live:
            yield

    def _render(self) -> Group:
        table = Table(box=None, pad_edge=False)
        for heading in ("agent", "state", "pid", "memory"):
            table.add_column(heading, justify="left" if heading in {"agent", "state"} else "right")
        for agent in list(self._agents.values()):
            info = self._look(agent)
            memory = info.get("memory_mb")
            table.add_row(
                Text(agent.name),
                str(info.get("status", "STARTING")).lower(),
                str(info.get("pid") or ""),
                f"{memory:.0f} MB" if memory else "",
            )
        return Group(table, self._bars) if self._tasks else Group(table)

    def _look(self, agent: AgentSpec) -> dict[str, Any]:
        """Return what is known of an agent; of one that is known no more, what it was."""
        info = self._info(agent.id)
        if not info and agent.id in self._seen:
            info = {**self._seen[agent.id], "status": AgentState.EXITED, "memory_mb": None}
        if info:
            self._seen[agent.id] = info
        return info

    def starting(self, agent: AgentSpec) -> None:
        """Add its line."""
        self._agents[agent.id] = agent

    def started(self, agent: AgentSpec) -> None:  # noqa: ARG002 - of the protocol
        """Show its state now: work that is short may be done before the next refresh."""
        self._live.refresh()

    def progress(self, report: ProgressReport, sender: AgentTag) -> None:
        """Move the bar of the agent."""
        if sender.id not in self._tasks:
            self._tasks[sender.id] = self._bars.add_task("", total=None)
        note = f"{sender.name}: {report.note}" if report.note else str(sender.name)
        self._bars.update(
            self._tasks[sender.id], completed=report.done, total=report.total, description=note
        )

    def show_output(self, line: str) -> None:
        """Print what an agent has printed, in its own colours, above the lines."""
        self._console.print(Text.from_ansi(line), soft_wrap=True)

    def say(self, text: str) -> None:
        """Print a line above the others."""
        self.tell(text)

    def tell(self, text: str) -> None:
        """Print a line above the others."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)
