"""A bare `os.fork` of a process that is loaded as the nursery is: the least a start can cost.

Run as a program it forks what it is asked for, one line of JSON after another; `BareFork` asks.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn, Self

from benchmarks.process.load import build_agent, load_like_nursery


class BareFork:
    """The program, started and ready."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.process.bare_fork"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._answer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    @contextmanager
    def children(
        self, count: int, *, overlapped: bool, build: bool = True
    ) -> Iterator[tuple[float, list[int]]]:
        """Fork children that live to the end of the block; gives seconds to ready, and pids."""
        answer = self._ask({"count": count, "overlapped": overlapped, "build": build})
        yield answer["seconds"], answer["pids"]
        self._ask({})

    def seconds(self, count: int, *, overlapped: bool, build: bool = True) -> float:
        """Return how long it takes so many children to be ready."""
        with self.children(count, overlapped=overlapped, build=build) as (seconds, _):
            return seconds

    def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer


def main() -> None:
    """Load, freeze, and fork on request."""
    gc.disable()
    load_like_nursery()
    build_agent()
    gc.collect()
    gc.freeze()
    _say({})
    while line := sys.stdin.readline():
        request = json.loads(line)
        hold, release = os.pipe()
        started = time.perf_counter()
        pids = _fork_all(request, hold, release)
        _say({"seconds": time.perf_counter() - started, "pids": pids})
        sys.stdin.readline()
        os.close(release)
        os.close(hold)
        for pid in pids:
            os.waitpid(pid, 0)
        _say({})


def _fork_all(request: dict[str, Any], hold: int, release: int) -> list[int]:
    hear, tell = os.pipe()
    pids = []
    for _ in range(request["count"]):
        pid = os.fork()
        if pid == 0:
            os.close(release)
            _be_child(hold, tell, build=request["build"])
        pids.append(pid)
        if not request["overlapped"]:
            os.read(hear, 1)
    ready = 0 if request["overlapped"] else len(pids)
    while ready < len(pids):
        ready += len(os.read(hear, len(pids)))
    os.close(hear)
    os.close(tell)
    return pids


def _be_child(hold: int, tell: int, *, build: bool) -> NoReturn:
    try:
        gc.enable()
        agent = build_agent() if build else None
        os.write(tell, b"r")
        os.read(hold, 1)  # end of file: the parent lets go
        del agent
    finally:
        os._exit(0)


def _say(answer: dict[str, Any]) -> None:
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
