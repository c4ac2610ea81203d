"""From the wish that all ends to the end of it."""

from __future__ import annotations

import time
from typing import Any

from benchmarks.marked import seconds_until_gone
from benchmarks.peers.peer import PATIENCE
from benchmarks.workloads.findings import Findings
from benchmarks.workloads.workload import Make, Measure, Workload

_NAME = "8 idle agents"


def _measure(make: Make, sizes: dict[str, Any]) -> Findings:
    found = Findings()
    with make() as peer:

        def stop() -> dict[str, float | str]:
            pids = peer.launch(sizes["count"])
            began = time.perf_counter()
            peer.stop()
            if seconds_until_gone(pids, PATIENCE) is None:
                raise AssertionError(f"still there {PATIENCE:g} s after it was stopped")
            return {_NAME: (time.perf_counter() - began) * 1e3}

        found.add_all((_NAME,), stop)
    return found


WORKLOAD = Workload(
    title="Stop",
    text="Milliseconds from the ordinary call that ends everything (ours: nursery and message "
    "server, too) until it has returned and the processes of eight idle agents are gone.",
    measures=(Measure(_NAME, "ms"),),
    measure=_measure,
    quick={"count": 8},
    full={"count": 8},
)
