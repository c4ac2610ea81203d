"""What describes a workload."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.peers.peer import Peer
from benchmarks.workloads.findings import Findings

Make = Callable[[], Peer]
"""Makes a peer whose runtime is not up yet."""


@dataclass(frozen=True)
class Measure:
    """One row of a workload's table.

    Attributes:
        name: of the row.
        unit: of its values.
        more_is_better: else less is.
    """

    name: str
    unit: str
    more_is_better: bool = False


@dataclass(frozen=True)
class Workload:
    """One section of the report.

    Attributes:
        title: its heading.
        text: what is measured and how, in Markdown.
        measures: its rows.
        measure: runs it on a peer, with its sizes.
        quick: sizes that only prove that it runs.
        full: sizes whose figures say something.
        rounds: how often at most; None: as often as all.
    """

    title: str
    text: str
    measures: tuple[Measure, ...]
    measure: Callable[[Make, dict[str, Any]], Findings]
    quick: Mapping[str, Any]
    full: Mapping[str, Any]
    rounds: int | None = None
