"""The peers of the standard library: `multiprocessing` spawn, and an executor over it."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from multiprocessing.synchronize import Barrier

from benchmarks.process.load import load

_SPAWN = multiprocessing.get_context("spawn")
_meeting: Barrier | None = None


class Spawned:
    """One child with the imports of an agent."""

    def __init__(self) -> None:
        self._ours, theirs = _SPAWN.Pipe()
        self.process: SpawnProcess = _SPAWN.Process(target=_child, args=(theirs,), daemon=True)
        self.process.start()
        theirs.close()

    def wait(self) -> None:
        """Wait until it says that it is ready."""
        self._ours.recv_bytes()

    def close(self) -> None:
        """Give back what is left of it."""
        self._ours.close()
        self.process.join()
        self.process.close()


@contextmanager
def spawned(count: int, *, overlapped: bool) -> Iterator[tuple[float, list[Spawned]]]:
    """Start so many children; gives seconds to ready, and the children."""
    children = []
    started = time.perf_counter()
    for _ in range(count):
        children.append(Spawned())
        if not overlapped:
            children[-1].wait()
    if overlapped:
        for child in children:
            child.wait()
    yield time.perf_counter() - started, children
    for child in children:
        child.close()


def pool_seconds(count: int) -> float:
    """Return how long a `ProcessPoolExecutor` takes until so many workers are ready."""
    meeting = _SPAWN.Barrier(count)
    started = time.perf_counter()
    with ProcessPoolExecutor(count, _SPAWN, _begin_worker, (meeting,)) as pool:
        for arrival in [pool.submit(_meet) for _ in range(count)]:  # one each: none may leave
            arrival.result()
        return time.perf_counter() - started


def _child(parent: Connection) -> None:
    load()
    parent.send_bytes(b"r")
    try:
        parent.recv_bytes()
    except EOFError:
        return


def _begin_worker(meeting: Barrier) -> None:
    global _meeting  # noqa: PLW0603 - a worker has no other place
    load()
    _meeting = meeting


def _meet() -> None:
    assert _meeting is not None
    _meeting.wait()
