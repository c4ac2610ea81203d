"""Measures messaging, its floors and its peers, and prints them side by side."""

from __future__ import annotations

import argparse
import logging
import os
import platform
import sys
import time
from collections.abc import Sequence

from benchmarks.messaging.parts import FULL, PARTS, QUICK, TARGETS
from benchmarks.messaging.report import measure, show
from rustic_ai.core._version import how_built


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; returns the exit code, 1 where a target was missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.messaging", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="part", help=", ".join(PARTS))
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--quick", action="store_true", help="the default: less than 3 minutes")
    how.add_argument("--full", action="store_true", help="more of everything; about half an hour")
    parser.add_argument("--repeats", type=int, help="rounds; default: 3, with --full 5")
    options = parser.parse_args(arguments)
    if unknown := set(options.parts) - PARTS.keys():
        parser.error(f"there is no part {', '.join(sorted(unknown))}; parts: {', '.join(PARTS)}")
    scale = FULL if options.full else QUICK
    repeats = options.repeats or (5 if options.full else 3)
    logging.basicConfig(level=logging.WARNING)
    print(
        f"{how_built()}, Python {platform.python_version()}, {os.cpu_count()} CPUs, "
        f"{platform.system()} {platform.release()}, load {os.getloadavg()[0]:.1f}; "
        f"{repeats} rounds: "
        "median (lowest - highest)\n",
        flush=True,
    )
    begun = time.perf_counter()
    chosen = [part for name, part in PARTS.items() if not options.parts or name in options.parts]
    book = measure([one for part in chosen for one in part(scale)], repeats)
    missed = show(book, TARGETS)
    print(f"\n{time.perf_counter() - begun:.0f} s; targets missed: {missed}")
    if how_built() != "compiled":
        print("the targets are those of the compiled wheel: `make built` says where that is")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
