"""What executors have in common: calls from the program to workers, and futures."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import Future, as_completed
from pathlib import Path
from typing import Any

from benchmarks.peers import jobs
from benchmarks.peers.jobs import WORKERS
from benchmarks.peers.looks import Look, number_of, numbered
from benchmarks.peers.peer import PATIENCE, Crash, NotThereError, Peer, message, now


def meet(part: tuple[str, int]) -> int:
    """Stay until so many workers have come, so that none takes two calls; returns the pid."""
    folder, count = part
    (Path(folder) / str(os.getpid())).touch()
    while len(os.listdir(folder)) < count:  # noqa: PTH208 - many look at it often
        time.sleep(0.005)
    return os.getpid()


def meet_warm(part: tuple[str, int]) -> None:
    """Meet, with what jobs need loaded."""
    jobs.warm()
    meet(part)


def echo(given: Any) -> Any:
    """Answer with the same."""
    return given


def handle(given: dict[str, Any]) -> int:
    """Take a message."""
    return int(given["number"])


class ExecutorPeer(Peer):
    """Measures an executor that `make` makes."""

    def __init__(self) -> None:
        self.pool: Any = None

    def make(self, workers: int) -> Any:
        """Return an executor, in which workers may not have started yet."""
        raise NotImplementedError

    def launch(self, count: int) -> list[int]:
        """Start all workers: a call for each, and none answers before all have one."""
        self.stop()
        self.pool = self.make(count)
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            calls = [self.pool.submit(meet, (folder, count)) for _ in range(count)]
            return [call.result(PATIENCE) for call in calls]

    def keep_busy(self) -> None:
        """Leave one worker in a loop."""
        self.pool.submit(jobs.spin)

    def trips(self, n: int, size: int) -> list[float]:
        """Call, and wait for the result: from the program, since workers cannot call each other."""
        self.launch(1)
        seconds = []
        for number in range(n):
            sent = now()
            answer = self.pool.submit(echo, message(number, size)).result(PATIENCE)
            seconds.append(now() - sent)
            assert answer["number"] == number
        return seconds

    def flow(self, n: int, size: int, receivers: int, batch: int) -> float:
        """Submit all to one worker; together by `map` with chunks."""
        if receivers > 1:
            raise NotThereError("it cannot send one message to many workers")
        self.launch(1)
        begun = now()
        if batch > 1:
            found = list(self.pool.map(handle, _messages(n, size), chunksize=batch))
        else:
            calls = [self.pool.submit(handle, one) for one in _messages(n, size)]
            found = [call.result(PATIENCE) for call in calls]
        seconds = now() - begun
        assert len(found) == n
        return seconds

    def arrays(self, size: int, n: int, look: Look, *, in_place: bool) -> list[float]:
        """Call with an array."""
        if in_place:
            raise NotThereError("what is sent is copied")
        self.launch(1)
        array, seconds = numbered(size), []
        for number in range(n):
            array[-1] = number
            sent = now()
            answer = self.pool.submit(number_of, array, look).result(PATIENCE)
            seconds.append(now() - sent)
            assert answer == number
        return seconds

    def work(self, job: str, parts: Sequence[Any]) -> tuple[list[Any], float]:
        """Submit all parts; workers take them one by one."""
        self.launch(WORKERS)
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            for call in [self.pool.submit(meet_warm, (folder, WORKERS)) for _ in range(WORKERS)]:
                call.result(PATIENCE)
        begun = now()
        results = [call.result() for call in [self.pool.submit(jobs.JOBS[job], p) for p in parts]]
        return results, now() - begun

    def crash(self, calls: int, seconds: float) -> Crash:
        """Let the futures tell."""
        (pid,) = self.launch(1)
        futures: list[Future[Any]] = [
            self.pool.submit(jobs.nap, (number, seconds)) for number in range(calls)
        ]
        arriving = as_completed(futures, PATIENCE)
        for _ in range(calls // 4):
            next(arriving).result()
        killed = now()
        os.kill(pid, signal.SIGKILL)
        noticed, lost = 0.0, 0
        for call in arriving:
            if call.exception() is not None:
                noticed, lost = noticed or now() - killed, lost + 1
        return Crash(noticed, "the executor is broken; a new one has to be made", lost)


def _messages(n: int, size: int) -> Any:
    return (message(number, size) for number in range(n))
