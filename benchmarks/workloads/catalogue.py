"""All workloads, in the order of the report."""

from __future__ import annotations

import importlib

from benchmarks.workloads.workload import Workload

WORKLOADS: dict[str, str] = {
    "launch": "launch",
    "memory": "memory",
    "round-trip": "round_trip",
    "throughput": "throughput",
    "arrays": "arrays",
    "speed-up": "speed_up",
    "crash": "crash",
    "stop": "stop",
    "orphans": "orphans",
}
"""Names for the command line, and modules of this package."""


def load(name: str) -> Workload:
    """Return a workload."""
    found: Workload = importlib.import_module(f"benchmarks.workloads.{WORKLOADS[name]}").WORKLOAD
    return found
