"""Measures this library beside its peers, and writes tables and charts."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.charts import chart
from benchmarks.document import CHARTS, document
from benchmarks.environments import FOLDER, ROOT
from benchmarks.peers.catalogue import PEERS
from benchmarks.results import Book
from benchmarks.runs import measure
from benchmarks.workloads.catalogue import WORKLOADS, load

_COMMAND = "python -m benchmarks"
_RESULTS = Path(CHARTS, "results.json")


def _arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=_COMMAND, description=__doc__)
    parser.add_argument(
        "--only", action="append", choices=WORKLOADS, help="a workload; may be given several times"
    )
    parser.add_argument(
        "--peer", action="append", choices=PEERS, help="a peer; may be given several times"
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="prove that it runs: small sizes, one round, no new environments",
    )
    parser.add_argument("--rounds", type=int, help="default: 3; 1 with --quick")
    parser.add_argument(
        "--report", action="store_true", help="measure nothing; write anew what was saved"
    )
    parser.add_argument(
        "--output", type=Path, help="folder of the report; default: docs; with --quick .bench/quick"
    )
    return parser.parse_args(given)


def write(output: Path) -> Path:
    """Write document and charts from the saved results; returns the document."""
    book = Book.load(output / _RESULTS)
    for name, result in book.results.items():
        (output / CHARTS / f"{name}.svg").write_text(chart(load(name), result))
    file = output / "benchmarks.md"
    file.write_text(document(book))
    return file


def main(given: Sequence[str] | None = None) -> int:
    """Run; returns the exit code, 1 where a run failed."""
    told = _arguments(given)
    output: Path = told.output or (FOLDER / "quick" if told.quick else ROOT / "docs")
    failed = False
    if not told.report:
        rounds = told.rounds or (1 if told.quick else 3)
        book = Book(f"{_COMMAND}{' --quick' if told.quick else ''}")
        began = time.monotonic()
        measure(
            book,
            told.only or list(WORKLOADS),
            told.peer or list(PEERS),
            rounds,
            quick=told.quick,
            tell=lambda text: print(text, flush=True),
            keep=lambda: book.save(output / _RESULTS),
        )
        failed = any(p.failed for result in book.results.values() for p in result.peers.values())
        print(f"{time.monotonic() - began:.0f} s")
    print(f"the report is in {write(output)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
