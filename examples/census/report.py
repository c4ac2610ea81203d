"""How the census is shown: a ranked table for people, JSON for programs."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from examples.census.results import Census


@dataclass(frozen=True, slots=True)
class Timing:
    """How long it took, in seconds of wall time; of the single process where it was measured.

    The totals are from before the first process is started until the last one is gone, the work
    from the first file to the last result.
    """

    workers: int
    engine: str
    total: float
    work: float
    alone_total: float | None = None
    alone_work: float | None = None

    def describe(self) -> str:
        """Say what was measured, and what follows from it."""
        text = (
            f"{self.workers} workers, {self.engine} engine: {self.work:.2f} s of work, "
            f"{self.total:.2f} s with the start and end of every process"
        )
        if self.alone_total is None or self.alone_work is None:
            return text
        return (
            f"{text}\none fresh process, same code, same files: {self.alone_work:.2f} s of work, "
            f"{self.alone_total:.2f} s with its start and end\n"
            f"speed-up: {self.alone_work / self.work:.2f} times for the work, "
            f"{self.alone_total / self.total:.2f} times from start to end"
        )


def show(census: Census, console: Console, top: int = 20) -> None:
    """Print the most complex modules, and the totals."""
    shown = census.modules[:top]
    console.print(f"The {len(shown)} most complex modules of {census.folder}", soft_wrap=True)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("#", justify="right", no_wrap=True, min_width=3)
    table.add_column("module", no_wrap=True, max_width=32)
    for heading in ("complexity", "lines", "defs", "nesting", "worst"):
        table.add_column(heading, justify="right", no_wrap=True, min_width=len(heading))
    table.add_column("where", no_wrap=True)
    for rank, m in enumerate(shown, start=1):
        counts = (m.complexity, m.lines, m.functions, m.max_nesting, m.max_complexity)
        table.add_row(str(rank), m.module, *(f"{n:,}" for n in counts), m.most_complex)
    console.print(table)
    t = census.totals
    console.print(
        f"{t.modules:,} modules, {t.lines:,} lines ({t.code_lines:,} of code), "
        f"{t.functions:,} functions, {t.classes:,} classes, total complexity {t.complexity:,}; "
        f"{t.unparsable} files are not valid Python",
        highlight=False,
        soft_wrap=True,
    )


def write(census: Census, timing: Timing, path: Path) -> None:
    """Write everything as JSON."""
    content = {
        "totals": census.totals.model_dump(),
        "timing": asdict(timing),
        **census.model_dump(),
    }
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
