"""What two processes gain where the work is the CPU's."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from sysconfig import get_path
from typing import Any

from benchmarks.peers.jobs import JOBS, parts_of, warm
from benchmarks.peers.peer import Peer
from benchmarks.workloads.findings import Findings
from benchmarks.workloads.workload import Make, Measure, Workload

_NAMES = {"monte carlo": "Monte Carlo", "census": "census"}


def _measure(make: Make, sizes: dict[str, Any]) -> Findings:
    found = Findings()
    warm()
    alone = {job: _alone(job, _parts(job, sizes)) for job in _NAMES}
    with make() as peer:
        for job, name in _NAMES.items():
            found.add_all((name,), partial(_gain, peer, job, _parts(job, sizes), alone[job]))
    return found


def _gain(
    peer: Peer, job: str, parts: list[Any], alone: tuple[int, float]
) -> dict[str, float | str]:
    results, seconds = peer.work(job, parts)
    assert _total(job, results) == alone[0], "another result than that of one process"
    return {_NAMES[job]: alone[1] / seconds}


def _parts(job: str, sizes: dict[str, Any]) -> list[Any]:
    size = sizes[job]
    return parts_of(job, str(Path(get_path("stdlib"), size)) if job == "census" else size)


def _alone(job: str, parts: list[Any]) -> tuple[int, float]:
    """Do it in this process, to which nothing has happened yet."""
    _read(job, parts)
    began = time.perf_counter()
    results = [JOBS[job](part) for part in parts]
    return _total(job, results), time.perf_counter() - began


def _read(job: str, parts: list[Any]) -> None:
    """Read all files once, so that nobody waits for the disk."""
    if job == "census":
        for folder, paths in parts:
            for path in paths:
                Path(folder, path).read_bytes()


def _total(job: str, results: list[Any]) -> int:
    """Return a number that tells whether the whole work was done."""
    if job == "census":
        return sum(getattr(one, "complexity", 1) for found in results for one in found)
    return sum(results)


WORKLOAD = Workload(
    title="Speed-up on two processes",
    text="How many times faster two warm workers are than the same code in one process, which is "
    "measured just before: a Monte Carlo simulation in pure Python, one part for each worker; and "
    "the census of examples/census over the standard library, in parts that a worker gets when it "
    "has done the one before, results sent back included. The ideal is 2, on an idle machine "
    "with two cores; each result is compared with that of the one process. Small differences are "
    "noise: the frequency of the cores varies as much.",
    measures=tuple(Measure(name, "times", more_is_better=True) for name in _NAMES.values()),
    measure=_measure,
    quick={"monte carlo": 200_000, "census": "asyncio"},
    full={"monte carlo": 10_000_000, "census": ""},
)
