"""What tests of the journal need."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rustic_ai.core.messaging.backend.embedded_backend.journal import Journal, Recovered


@contextmanager
def opened(directory: Path, **options: Any) -> Iterator[tuple[Journal, Recovered]]:
    """Open a journal for a while; without syncing, unless asked."""
    journal, recovered = Journal.open(directory, **{"sync": "none", **options})
    try:
        yield journal, recovered
    finally:
        journal.close()


def recovered_from(directory: Path, **options: Any) -> Recovered:
    """Return what a directory remembers."""
    with opened(directory, **options) as (_, recovered):
        return recovered


def segments(directory: Path) -> list[Path]:
    """Return the segments of a directory in order."""
    return sorted(directory.glob("*.journal"))


def fill(directory: Path, commits: int, **options: Any) -> list[int]:
    """Write a run of topic 1 with each commit; returns the journal's size after each."""
    sizes = []
    with opened(directory, **options) as (journal, _):
        journal.topic(1, "g", "t")
        for base in range(commits):
            journal.run(1, base, 1, b"message %d" % base * 10)
            journal.cursor(1, "reader", base)
            journal.commit()
            sizes.append(journal.statistics()["bytes"])
    return sizes


def flip(path: Path, offset: int) -> None:
    """Turn one byte of a file over."""
    data = bytearray(path.read_bytes())
    data[offset] ^= 0xFF
    path.write_bytes(data)
