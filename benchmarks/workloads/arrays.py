"""Large payloads."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

from benchmarks.peers.looks import Look
from benchmarks.peers.peer import Peer
from benchmarks.statistics import percentile
from benchmarks.workloads.findings import Findings
from benchmarks.workloads.workload import Make, Measure, Workload


class _Way(NamedTuple):
    size: int
    look: Look = "last"
    in_place: bool = False


_WAYS = {
    "1 MB": _Way(1_000_000),
    "100 MB": _Way(100_000_000),
    "100 MB, summed": _Way(100_000_000, "sum"),
    "100 MB, written in place": _Way(100_000_000, in_place=True),
}


def _measure(make: Make, sizes: dict[str, Any]) -> Findings:
    found = Findings()
    with make() as peer:
        for name in _WAYS:
            found.add_all((name,), partial(_send, peer, sizes, name))
    return found


def _send(peer: Peer, sizes: dict[str, Any], name: str) -> dict[str, float | str]:
    warm, (size, look, in_place) = sizes["warm"], _WAYS[name]
    n = sizes["1 MB" if size == _WAYS["1 MB"].size else "100 MB"]
    seconds = peer.arrays(size, warm + n, look, in_place=in_place)[warm:]
    return {name: percentile(seconds, 0.5) * 1e3}


WORKLOAD = Workload(
    title="Large arrays",
    text="Milliseconds from sending a NumPy array of 64-bit floats to the answer, which carries "
    "the array's last number, or what comes of the sum of all. Each array has another last "
    "number. An array that is written in place is made where it is sent from, which is its "
    "maker's own work and not timed; where there is no such thing, what stands in the row above "
    "is what it compares with. The first ones are left out as warm-up.",
    measures=tuple(Measure(name, "ms") for name in _WAYS),
    measure=_measure,
    quick={"warm": 1, "1 MB": 3, "100 MB": 1},
    full={"warm": 3, "1 MB": 100, "100 MB": 7},
)
