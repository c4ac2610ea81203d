"""Who is ahead, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from benchmarks.peers.catalogue import OURS, PEERS
from benchmarks.results import WorkloadResult
from benchmarks.workloads.workload import Measure, Workload

_LEVEL = 1.1
"""Up to here two figures of a machine that does other things, too, say nothing."""


@dataclass(frozen=True)
class Verdict:
    """How ours fares in one measure against the best peer.

    Attributes:
        measure: which.
        best: name of the peer that does best.
        ours: our median.
        theirs: that peer's.
        beside: against the best framework, where the best of all is only a floor.
    """

    measure: Measure
    best: str
    ours: float
    theirs: float
    beside: Verdict | None = None

    @property
    def factor(self) -> float:
        """How many times better ours is; below 1 it is worse. 1 where both are 0."""
        if self.ours == self.theirs:
            return 1.0
        good, bad = self.theirs, self.ours
        if self.measure.more_is_better:
            good, bad = bad, good
        return good / bad if bad else float("inf")

    @property
    def standing(self) -> str:
        """`ahead`, `level` or `behind`."""
        if self.factor > _LEVEL:
            return "ahead"
        return "behind" if self.factor < 1 / _LEVEL else "level"

    def __str__(self) -> str:
        told = self._told()
        return f"{told}; apart from that floor, {self.beside}" if self.beside else told

    def _told(self) -> str:
        peer = PEERS[self.best].title
        if self.standing == "level":
            return f"level with {peer}"
        if 0 in {self.ours, self.theirs}:
            return f"**{self.standing}**: {self.ours:g}, and {self.theirs:g} of {peer}"
        times = self.factor if self.standing == "ahead" else 1 / self.factor
        what = "better" if self.standing == "ahead" else "worse"
        return f"**{self.standing}**: {_times(times)} times {what} than {peer}"


def verdicts(workload: Workload, result: WorkloadResult) -> Iterator[Verdict]:
    """Judge every measure that ours and a peer have values for."""
    for measure in workload.measures:
        medians = {
            name: spread.median
            for name, peer in result.peers.items()
            if (spread := peer.spread(measure.name)) is not None
        }
        ours = medians.pop(OURS, None)
        if ours is not None and medians:
            yield _judge(measure, ours, medians)


def _judge(measure: Measure, ours: float, medians: Mapping[str, float]) -> Verdict:
    choose = max if measure.more_is_better else min
    best = choose(medians, key=medians.__getitem__)
    others = {name: value for name, value in medians.items() if not PEERS[name].is_floor}
    beside = _judge(measure, ours, others) if others and PEERS[best].is_floor else None
    return Verdict(measure, best, ours, medians[best], beside)


def _times(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}"
