"""Measures everything, and prints it part by part."""

from __future__ import annotations

import argparse
import logging
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence

from benchmarks.process import deaths, idle, launch, memory, reads, stops
from benchmarks.process.report import Row, show
from rustic_ai.core._version import how_built

_Part = tuple[str, Callable[[bool], list[Row]]]
_PARTS: dict[str, _Part] = {
    "launch": ("Launch to ready", lambda full: launch.measure(full=full)),
    "memory": ("Memory", lambda _: memory.measure()),
    "deaths": ("Deaths", lambda full: deaths.measure(full=full)),
    "stops": ("Stops", lambda full: stops.measure(full=full)),
    "idle": ("Idling", lambda full: idle.measure(full=full)),
    "reads": ("Looking", lambda _: reads.measure()),
    "thousand": ("A thousand", lambda _: stops.measure_thousand()),
}
_ONLY_FULL = {"thousand"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; returns the exit code, 1 where a goal was missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.process", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="part", help=", ".join(_PARTS))
    parser.add_argument("--full", action="store_true", help="more repeats, 1,000 agents")
    options = parser.parse_args(arguments)
    if unknown := set(options.parts) - _PARTS.keys():
        parser.error(f"there is no part {', '.join(sorted(unknown))}; parts: {', '.join(_PARTS)}")
    logging.getLogger("rustic_ai").setLevel(logging.CRITICAL)  # that agents die is the plan
    print(
        f"{how_built()}, Python {platform.python_version()}, {os.cpu_count()} CPUs, "
        f"{platform.system()} {platform.release()}, load {os.getloadavg()[0]:.1f}; "
        "median (lowest-highest)\n"
    )
    missed = 0
    started = time.perf_counter()
    for name, (title, measure) in _PARTS.items():
        by_default = not options.parts and (options.full or name not in _ONLY_FULL)
        if by_default or name in options.parts:
            rows = measure(options.full)
            show(title, rows)
            missed += sum(row.is_met is False for row in rows)
    print(f"{time.perf_counter() - started:.0f} s; goals missed: {missed}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
