"""What was measured: ours, a peer's, their ratio, and the goal."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True)
class Sample:
    """Several measurements of one thing."""

    values: Sequence[float]

    @property
    def median(self) -> float:
        """The middle one."""
        return statistics.median(self.values)

    def times(self, factor: float) -> Sample:
        """Return it in another unit."""
        return Sample([value * factor for value in self.values])

    def __str__(self) -> str:
        text = _number(self.median)
        if len(self.values) > 1:
            text += f" ({_number(min(self.values))}-{_number(max(self.values))})"
        return text


@dataclass(frozen=True, slots=True)
class Goal:
    """A limit for our own number, or for its ratio to the peer's."""

    limit: float
    kind: str

    @classmethod
    def under(cls, limit: float) -> Goal:
        """Ours is under so much, in the unit of the row."""
        return cls(limit, "under")

    @classmethod
    def times_peer(cls, limit: float) -> Goal:
        """Ours is at most so many times the peer's."""
        return cls(limit, "at most peer x")

    @classmethod
    def better_by(cls, limit: float) -> Goal:
        """The peer's is at least so many times ours."""
        return cls(limit, "better than peer x")

    def is_met(self, ours: float, peer: float | None) -> bool:
        """Say whether it is reached."""
        if self.kind == "under":
            return ours < self.limit
        assert peer is not None
        if self.kind == "at most peer x":
            return ours <= self.limit * peer
        return peer >= self.limit * ours

    def __str__(self) -> str:
        return f"{self.kind} {self.limit:g}"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the report."""

    what: str
    unit: str
    ours: Sample
    peer_name: str = ""
    peer: Sample | None = None
    goal: Goal | None = None

    @property
    def is_met(self) -> bool | None:
        """Whether its goal is reached; None where it has none."""
        if self.goal is None:
            return None
        return self.goal.is_met(self.ours.median, self.peer.median if self.peer else None)


def show(title: str, rows: Sequence[Row]) -> None:
    """Print rows as a table."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in ("what", "unit", "ours", "peer", "peer is", "peer / ours", "goal", ""):
        right = column in {"ours", "peer is", "peer / ours"}
        table.add_column(column, justify="right" if right else "left", no_wrap=column != "what")
    for row in rows:
        ratio = f"{row.peer.median / row.ours.median:.2g}" if row.peer else ""
        verdict = {None: "", True: "ok", False: "MISSED"}[row.is_met]
        table.add_row(
            row.what,
            row.unit,
            str(row.ours),
            row.peer_name,
            str(row.peer or ""),
            _plain(ratio),
            str(row.goal or ""),
            verdict,
        )
    console = Console()
    # A pipe has no width, and a table that is cut says nothing.
    Console(width=console.width if console.is_terminal else 180).print(table, "")


def _number(value: float) -> str:
    digits = 3 if abs(value) < 1000 else 6
    return _plain(f"{value:.{digits}g}")


def _plain(text: str) -> str:
    return f"{float(text):,.0f}" if "e" in text else text
