"""Finding the processes of a run by a mark in the environment, whoever their parent is by now."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path

VARIABLE = "RUSTIC_BENCHMARK_MARK"


def marked(mark: str) -> set[int]:
    """Return the pids of all processes with the mark, or one that begins with it; not our own."""
    wanted = f"\0{VARIABLE}={mark}".encode()
    found = set()
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            with contextlib.suppress(OSError):
                if wanted in b"\0" + (folder / "environ").read_bytes() and not is_gone(
                    int(folder.name)
                ):
                    found.add(int(folder.name))
    return found


def is_gone(pid: int) -> bool:
    """Say whether a process has ended, reaped or not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return True
    return stat.rpartition(b")")[2].split()[0] in {b"Z", b"X"}


def seconds_until_gone(pids: Iterable[int], timeout: float) -> float | None:
    """Wait until all have ended; returns how long it took, None where some are still there."""
    began = time.monotonic()
    left = set(pids)
    while left := {pid for pid in left if not is_gone(pid)}:
        if time.monotonic() - began > timeout:
            return None
        time.sleep(0.0005)
    return time.monotonic() - began


def end(mark: str, patience: float = 10.0) -> list[str]:
    """Wait for the processes of a mark to end, and kill who stays; returns their command lines."""
    seconds_until_gone(marked(mark), patience)
    told = []
    while left := marked(mark):  # who is killed may have started another meanwhile
        for pid in left:
            with contextlib.suppress(OSError):
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                told.append(b" ".join(words).decode(errors="replace")[:120].strip())
                os.kill(pid, signal.SIGKILL)
        seconds_until_gone(left, patience)
    return told


def pss(pid: int) -> int:
    """Return the bytes of memory that a process has: its own, and its share of the common ones.

    Raises:
        ValueError: the kernel does not tell.
    """
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"the kernel tells no PSS of {pid}")
