"""Notices what a test, or a program, left behind."""

from __future__ import annotations

import contextlib
import gc
import os
import secrets
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

MARK_VARIABLE = "RUSTIC_TEST_MARK"
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - looked at, not written to
_SHARED_NAMES = ("psm_", "sem.mp-", "rustic")
"""How Python's and our own shared-memory segments and semaphores are called."""
_NOT_TO_BE_SEEN = (
    *(psutil.NoSuchProcess, ProcessLookupError, FileNotFoundError),
    *(psutil.AccessDenied, PermissionError),
)
"""A process that has ended meanwhile, and one of another user."""


@dataclass(frozen=True, slots=True)
class Traces:
    """What a program holds at one moment, beside memory."""

    processes: Mapping[int, str]
    threads: frozenset[str]
    descriptors: int
    files: frozenset[str]


@dataclass(slots=True)
class LeakCheck:
    """Compares what there is with what there was; all processes of a marked program are found.

    Construct it before anything is started: it marks the environment, which every process that
    is started from here inherits, whoever its parent is by then.

    Args:
        directories: where files must not stay, beside the place of shared memory.
    """

    directories: tuple[Path, ...] = ()
    mark: str = field(default_factory=lambda: secrets.token_hex(8))

    def __post_init__(self) -> None:
        os.environ[MARK_VARIABLE] = self.mark

    def look(self) -> Traces:
        """Return what there is now."""
        files = {path for place in self.directories for path in _everything_in(place)}
        if _SHARED_MEMORY.is_dir():  # other programs have theirs there, too
            files |= {str(f) for f in _SHARED_MEMORY.iterdir() if f.name.startswith(_SHARED_NAMES)}
        return Traces(
            processes=self._processes(),
            threads=frozenset(thread.name for thread in threading.enumerate()),
            descriptors=psutil.Process().num_fds(),
            files=frozenset(files),
        )

    def _processes(self) -> dict[int, str]:
        found = {}
        for process in psutil.process_iter():
            try:
                if process.pid != os.getpid() and self._is_ours(process):
                    found[process.pid] = f"{process.status()} {' '.join(process.cmdline())[:200]}"
            except _NOT_TO_BE_SEEN:
                continue
        return found

    def _is_ours(self, process: psutil.Process) -> bool:
        # A look takes in every process of the machine, so the least that tells comes first.
        environment = _environment(process)
        if not environment and process.status() == psutil.STATUS_ZOMBIE:  # has none any more
            return process.ppid() == os.getpid()
        return f"{MARK_VARIABLE}={self.mark}".encode() in environment

    def _is_used_by_others(self, file: str) -> bool:
        """Say whether it is shared memory of another program, which happens to run meanwhile."""
        if not file.startswith(str(_SHARED_MEMORY)):
            return False
        try:
            facts = Path(file).stat()
        except FileNotFoundError:  # gone by now
            return True
        device = f"{os.major(facts.st_dev):02x}:{os.minor(facts.st_dev):02x}"
        # By number: a semaphore is mapped under the name that it had before its own.
        mapped = f" {device} {facts.st_ino} "
        for process in psutil.process_iter():
            with contextlib.suppress(OSError, psutil.Error):
                maps = Path(f"/proc/{process.pid}/maps").read_text()
                if mapped in maps and process.pid != os.getpid() and not self._is_ours(process):
                    return True
        return False

    def new_files(self, before: Traces, now: Traces) -> list[str]:
        """Return the files that are there now only, but the shared memory of other programs."""
        new = sorted(now.files - before.files)
        return [name for name in new if not self._is_used_by_others(name)]

    def left_behind(self, before: Traces, timeout: float = 2.0) -> list[str]:
        """Wait up to `timeout` seconds for everything new to go; return what stays, in words."""
        deadline = time.monotonic() + timeout
        while (left := self._difference(before)) and time.monotonic() < deadline:
            gc.collect()
            time.sleep(0.01)
        return left

    def end_left(self, before: Traces, timeout: float = 5.0) -> None:
        """Kill the processes that were not there before, so that they disturb nothing after them.

        Raises:
            psutil.TimeoutExpired: one is still there after `timeout` seconds.
        """
        for pid in self._processes().keys() - before.processes.keys():
            with contextlib.suppress(psutil.NoSuchProcess):
                process = psutil.Process(pid)
                process.kill()
                process.wait(timeout)

    def _difference(self, before: Traces) -> list[str]:
        now = self.look()
        left = [f"process {p}: {c}" for p, c in now.processes.items() if p not in before.processes]
        left += [f"thread {name}" for name in sorted(now.threads - before.threads)]
        left += [f"file {name}" for name in self.new_files(before, now)]
        if now.descriptors > before.descriptors:
            left.append(f"{now.descriptors - before.descriptors} file descriptors")
        return left


def _environment(process: psutil.Process) -> list[bytes]:
    """Return the variables of a process as it was started with."""
    if not psutil.LINUX:
        return [f"{name}={value}".encode() for name, value in process.environ().items()]
    content = Path(f"/proc/{process.pid}/environ").read_bytes()
    return content.split(b"\0") if content else []


def _everything_in(place: Path) -> Iterator[str]:
    """Yield the paths below a directory, parts of which may go meanwhile."""
    for folder, folders, files in os.walk(place):  # unlike `rglob`, it bears that
        yield from (os.path.join(folder, name) for name in (*folders, *files))  # noqa: PTH118
