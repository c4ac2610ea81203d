"""What was measured, and where; kept as JSON."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from benchmarks.statistics import Spread
from rustic_ai.core._version import how_built

_MODEL = "model name"


def this_machine() -> str:
    """Describe where this runs."""
    cpu = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith(_MODEL):
            cpu = line.partition(":")[2].strip()
            break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{os.cpu_count()} CPUs ({cpu}), {memory:.0f} GiB, {platform.system()} "
        f"{platform.release()}, {platform.python_implementation()} {platform.python_version()}, "
        f"{how_built()}"
    )


@dataclass
class PeerResult:
    """What one peer did in one workload.

    Attributes:
        values: of each round, by measure.
        absent: why there is no value, by measure.
        failed: what went wrong, of the rounds that failed.
        left: command lines of processes that it left behind, and that were killed then.
        versions: of its packages.
    """

    values: dict[str, list[float]] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)

    def spread(self, measure: str) -> Spread | None:
        """Describe the values of a measure; None where there are none."""
        values = self.values.get(measure)
        return Spread.of(values) if values else None

    def add(self, found: Mapping[str, Any]) -> None:
        """Note what one run has printed."""
        for measure, value in found.get("values", {}).items():
            self.values.setdefault(measure, []).append(value)
        absent = found.get("absent", {})
        self.absent |= {"": absent} if isinstance(absent, str) else absent
        self.left += found["left"]
        self.versions |= found.get("versions", {})
        if "failed" in found:
            self.failed.append(found["failed"])


@dataclass
class WorkloadResult:
    """What all peers did in one workload, and when, where and by which command."""

    command: str
    date: str
    machine: str
    load: float
    peers: dict[str, PeerResult] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


class Book:
    """Results by workload.

    Args:
        command: makes all of them; what makes one of them is this and `--only`.
        results: those to begin with.
    """

    def __init__(self, command: str, results: dict[str, WorkloadResult] | None = None) -> None:
        self._command = command
        self.results = results or {}
        self._left_out: dict[str, str] = {}

    def leave_out(self, peer: str, why: str) -> None:
        """Note that a peer does not take part."""
        self._left_out[peer] = why

    def add(self, workload: str, peer: str, found: Mapping[str, Any]) -> None:
        """Note what one run has printed."""
        if workload not in self.results:
            self.results[workload] = self._begin(workload)
        self.results[workload].peers.setdefault(peer, PeerResult()).add(found)

    def _begin(self, workload: str) -> WorkloadResult:
        return WorkloadResult(
            command=f"{self._command} --only {workload}",
            date=f"{datetime.now(UTC):%Y-%m-%d}",
            machine=this_machine(),
            load=os.getloadavg()[0],
            left_out=dict(self._left_out),
        )

    def save(self, file: Path) -> None:
        """Write all as JSON, in place of those of the same workloads in the file."""
        old = Book.load(file).results if file.exists() else {}
        file.parent.mkdir(parents=True, exist_ok=True)
        found = {name: asdict(result) for name, result in (old | self.results).items()}
        file.write_text(json.dumps(found, indent=1) + "\n")

    @classmethod
    def load(cls, file: Path) -> Self:
        """Read what was saved."""
        results = {}
        for name, raw in json.loads(file.read_text()).items():
            peers = {peer: PeerResult(**facts) for peer, facts in raw.pop("peers").items()}
            results[name] = WorkloadResult(**raw, peers=peers)
        return cls("", results)
