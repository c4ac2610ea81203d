"""Large payloads."""

from __future__ import annotations

from functools import partial
from typing import Any

from benchmarks.peers.peer import Peer
from benchmarks.statistics import percentile
from benchmarks.workloads.findings import Findings
from benchmarks.workloads.workload import Make, Measure, Workload

_SIZES = {"1 MB": 1_000_000, "100 MB": 100_000_000}


def _measure(make: Make, sizes: dict[str, Any]) -> Findings:
    found = Findings()
    with make() as peer:
        for name in _SIZES:
            found.add_all((name,), partial(_send, peer, sizes, name))
    return found


def _send(peer: Peer, sizes: dict[str, Any], name: str) -> dict[str, float | str]:
    warm = sizes["warm"]
    seconds = peer.arrays(_SIZES[name], warm + sizes[name])[warm:]
    return {name: percentile(seconds, 0.5) * 1e3}


WORKLOAD = Workload(
    title="Large arrays",
    text="Milliseconds from sending a NumPy array of 64-bit floats to the answer, which carries "
    "the array's last number. Each array has another last number. The first ones are left out as "
    "warm-up.",
    measures=tuple(Measure(name, "ms") for name in _SIZES),
    measure=_measure,
    quick={"warm": 1, "1 MB": 3, "100 MB": 1},
    full={"warm": 2, "1 MB": 100, "100 MB": 5},
)
