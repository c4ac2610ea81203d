"""What agents cost in memory while they do nothing."""

from __future__ import annotations

import os
import time
from typing import Any

from benchmarks.marked import VARIABLE, marked, pss
from benchmarks.workloads.findings import Findings
from benchmarks.workloads.workload import Make, Measure, Workload

_EACH, _BESIDE, _ALL = "each agent", "the runtime's own processes", "8 agents in all"
_SETTLE = 0.5


def _measure(make: Make, sizes: dict[str, Any]) -> Findings:
    found = Findings()
    with make() as peer:

        def weigh() -> dict[str, float | str]:
            pids = set(peer.launch(sizes["count"]))
            time.sleep(_SETTLE)
            agents = sum(map(pss, pids))
            beside = sum(map(pss, marked(os.environ[VARIABLE]) - pids))
            program = pss(os.getpid())
            return {
                _EACH: agents / len(pids) / 1e6,
                _BESIDE: beside / 1e6,
                _ALL: (agents + beside + program) / 1e6,
            }

        found.add_all((_EACH, _BESIDE, _ALL), weigh)
    return found


WORKLOAD = Workload(
    title="Memory",
    text="MB of PSS (private pages, and the share of the common ones) of eight agents that have "
    "each answered one message and do nothing since. Beside them: whatever else the runtime has "
    "started; in all: with that and with the program.",
    measures=(Measure(_EACH, "MB"), Measure(_BESIDE, "MB"), Measure(_ALL, "MB")),
    measure=_measure,
    quick={"count": 8},
    full={"count": 8},
)
