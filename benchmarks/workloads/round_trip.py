"""From a message to its answer."""

from __future__ import annotations

from typing import Any

from benchmarks.statistics import percentile
from benchmarks.workloads.findings import Findings
from benchmarks.workloads.workload import Make, Measure, Workload

_MEDIAN, _TAIL = "median", "99th percentile"


def _measure(make: Make, sizes: dict[str, Any]) -> Findings:
    found = Findings()
    with make() as peer:

        def ping() -> dict[str, float | str]:
            seconds = peer.trips(sizes["warm"] + sizes["n"], sizes["size"])[sizes["warm"] :]
            return {
                _MEDIAN: percentile(seconds, 0.5) * 1e6,
                _TAIL: percentile(seconds, 0.99) * 1e6,
            }

        found.add_all((_MEDIAN, _TAIL), ping)
    return found


WORKLOAD = Workload(
    title="Round trip",
    text="Microseconds from a message of 200 letters to its answer of the same size, between two "
    "agents; one at a time. The first round trips are left out as warm-up.",
    measures=(Measure(_MEDIAN, "us"), Measure(_TAIL, "us")),
    measure=_measure,
    quick={"n": 200, "warm": 50, "size": 200},
    full={"n": 3000, "warm": 500, "size": 200},
)
