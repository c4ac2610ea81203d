"""Work that actors are given; the same code, whoever runs it."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

WORKERS = 2


def monte_carlo(part: tuple[int, int]) -> int:
    """Throw darts at a square; returns how many hit the circle in it."""
    seed, darts = part
    throw = random.Random(seed).random
    return sum(throw() ** 2 + throw() ** 2 <= 1.0 for _ in range(darts))


def census(part: tuple[str, Sequence[str]]) -> list[Any]:
    """Measure Python files as examples/census does."""
    from examples.census.measures import measure_file

    folder, paths = part
    return [measure_file(Path(folder), path) for path in paths]


def hello(_: object = None) -> int:
    """Answer with the pid."""
    return os.getpid()


def warm(_: object = None) -> None:
    """Load what jobs need."""
    import examples.census.measures  # noqa: F401 - that it is loaded is the purpose


def nap(part: tuple[int, float]) -> tuple[int, int]:
    """Take so many seconds; returns the number of the call, and the pid."""
    number, seconds = part
    time.sleep(seconds)
    return number, os.getpid()


def spin(_: object = None) -> None:
    """Compute without end."""
    while True:
        pass


JOBS: dict[str, Callable[[Any], Any]] = {"monte carlo": monte_carlo, "census": census}


def parts_of(job: str, size: Any) -> list[Any]:
    """Cut a job into parts: darts one for each worker, files as the example does."""
    if job == "monte carlo":
        return [(seed, size // WORKERS) for seed in range(WORKERS)]
    from examples.census.files import batches, python_files

    return [(size, paths) for paths in batches(python_files(Path(size)))]
