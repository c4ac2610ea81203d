"""From the wish for actors to the answer of each of them."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

from benchmarks.peers.peer import Peer
from benchmarks.workloads.findings import Findings
from benchmarks.workloads.workload import Make, Measure, Workload

_RUNTIME = "runtime up"


def _measure(make: Make, sizes: dict[str, Any]) -> Findings:
    found = Findings()
    for count in sizes["counts"]:
        began = time.perf_counter()
        with make() as peer:
            if count == sizes["counts"][0]:
                found.add(_RUNTIME, time.perf_counter() - began)

            found.add_all((_name(count),), partial(_launch, peer, count))
    return found


def _launch(peer: Peer, count: int) -> dict[str, float | str]:
    began = time.perf_counter()
    pids = peer.launch(count)
    seconds = time.perf_counter() - began
    assert len(set(pids)) == count, f"{count} processes wanted, {pids} came"
    return {_name(count): seconds * 1e3}


def _name(count: int) -> str:
    return f"{count} agent{'s' if count > 1 else ''}"


WORKLOAD = Workload(
    title="Launch to ready",
    text="Milliseconds from the wish for so many agents, all at once, to the last one's answer to "
    "a message. The runtime is up before: what that takes, imports included, has a column of its "
    "own, in seconds. Each count has a fresh runtime.",
    measures=(
        *(Measure(_name(count), "ms") for count in (1, 8, 32, 100)),
        Measure(_RUNTIME, "s"),
    ),
    measure=_measure,
    quick={"counts": [1, 8]},
    full={"counts": [1, 8, 32, 100]},
    rounds=2,
)
