"""What becomes of an agent that is killed, and of what it was asked."""

from __future__ import annotations

from typing import Any

from benchmarks.workloads.findings import Findings
from benchmarks.workloads.workload import Make, Measure, Workload

_NOTICED, _BACK, _LOST = "until noticed", "until it answers again", "calls lost of 200"


def _measure(make: Make, sizes: dict[str, Any]) -> Findings:
    found = Findings()
    with make() as peer:

        def crash() -> dict[str, float | str]:
            done = peer.crash(sizes["calls"], sizes["seconds"])
            return {
                _NOTICED: _in_ms(done.noticed),
                _BACK: _in_ms(done.recovered),
                _LOST: done.lost,
            }

        found.add_all((_NOTICED, _BACK, _LOST), crash)
    return found


def _in_ms(value: float | str) -> float | str:
    return value if isinstance(value, str) else value * 1e3


WORKLOAD = Workload(
    title="Crash",
    text="An agent has 200 calls of 2 ms before it; when a quarter is done it gets `kill -9`. "
    "Milliseconds until whoever owns it is told, and until a new process answers, without "
    "anybody's doing; and how many of the calls are never answered. Ours restarts with "
    '`restart_policy="permanent"`, whose default waits 0.1 s before the first. Ray: noticed with '
    "an actor that stays dead; the rest with `max_restarts` and `max_task_retries` at -1, since "
    "its defaults restart nothing and lose what was queued.",
    measures=(Measure(_NOTICED, "ms"), Measure(_BACK, "ms"), Measure(_LOST, "calls")),
    measure=_measure,
    quick={"calls": 200, "seconds": 0.002},
    full={"calls": 200, "seconds": 0.002},
)
