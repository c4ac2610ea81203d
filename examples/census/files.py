"""Which files the census reads, and in which portions."""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_INSTALLED = {"site-packages", "dist-packages", "__pycache__"}
BATCH_BYTES = 128 * 1024
"""Tenths of a second of work: long beside the cost of a message, short beside the whole."""


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file to measure: its POSIX path relative to the folder, and its size in bytes."""

    path: str
    size: int


def standard_library() -> Path:
    """Return the folder of the running Python's standard library."""
    return Path(sysconfig.get_path("stdlib"))


def python_files(folder: Path) -> list[SourceFile]:
    """List every ``*.py`` below a folder, sorted by path; not what is installed beside it.

    Raises:
        FileNotFoundError: there is none.
    """
    found = []
    for directory, subdirectories, names in os.walk(folder):
        subdirectories[:] = [name for name in subdirectories if name not in _INSTALLED]
        for name in names:
            file = Path(directory, name)
            if file.suffix == ".py" and file.is_file():
                found.append(SourceFile(file.relative_to(folder).as_posix(), file.stat().st_size))
    if not found:
        raise FileNotFoundError(f"no Python file in {folder}")
    return sorted(found, key=lambda file: file.path)


def batches(files: Iterable[SourceFile], target: int = BATCH_BYTES) -> list[tuple[str, ...]]:
    """Cut files into portions of about `target` bytes, the largest files first.

    Whoever takes the last portions then has small ones, so that all finish at the same time.
    """
    portions: list[tuple[str, ...]] = []
    paths: list[str] = []
    size = 0
    for file in sorted(files, key=lambda file: (-file.size, file.path)):
        paths.append(file.path)
        size += file.size
        if size >= target:
            portions.append(tuple(paths))
            paths, size = [], 0
    return [*portions, tuple(paths)] if paths else portions
