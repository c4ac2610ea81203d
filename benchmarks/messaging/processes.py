"""Processes that take part in a measurement, and how to talk to them.

A participant is `python -m MODULE SETTINGS` from the root of the repository. It says on standard
output, one JSON line each, that it is ready, and later what it measured; it begins at a line on
its standard input.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import psutil

ROOT = Path(__file__).resolve().parents[2]
_DEADLINE = 60.0


class Participant:
    """A process of this run; ended with its `with` block at the latest.

    Args:
        module: what it runs, a sibling of this module.
        settings: what it is told, in JSON's types; `core` pins it to one core.
    """

    def __init__(self, module: str, **settings: Any) -> None:
        paths = [str(ROOT), *filter(None, sys.path)]
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"benchmarks.messaging.{module}", json.dumps(settings)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def hear(self, timeout: float = _DEADLINE) -> dict[str, Any]:
        """Return its next word.

        Raises:
            RuntimeError: it said nothing in time, or has ended.
        """
        assert self._process.stdout is not None
        poll = select.poll()
        poll.register(self._process.stdout, select.POLLIN)
        line = self._process.stdout.readline() if poll.poll(timeout * 1000) else b""
        if not line:
            raise RuntimeError(f"{self._process.args!r} said nothing for {timeout:g} s, or ended")
        found: dict[str, Any] = json.loads(line)
        return found

    def go(self) -> None:
        """Let it begin."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"go\n")
        self._process.stdin.flush()

    def signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self._process.poll() is None:
            os.kill(self._process.pid, number)

    def stop(self) -> None:
        """End it."""
        self.signal(signal.SIGCONT)
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with contextlib.suppress(OSError):
                pipe.close()
        try:
            self._process.wait(0.5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def settings() -> dict[str, Any]:
    """Return what this participant was told, and pin it where it was told so."""
    found: dict[str, Any] = json.loads(sys.argv[1])
    if found.get("core") is not None:
        os.sched_setaffinity(0, {found["core"]})
    return found


def say(**facts: Any) -> None:
    """Tell whoever started this participant."""
    os.write(1, json.dumps(facts).encode() + b"\n")


def ready() -> None:
    """Say so, and wait for the word to begin."""
    say(ready=True)
    if not sys.stdin.readline():
        raise SystemExit(0)


@contextlib.contextmanager
def all_of(*participants: Participant) -> Iterator[None]:
    """End all of them at the end of the block."""
    try:
        yield
    finally:
        for participant in participants:
            participant.stop()


def cpu_of(pid: int) -> float:
    """Return the CPU seconds that a process has used."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def memory_of(pid: int) -> int:
    """Return the resident bytes of a process."""
    return int(psutil.Process(pid).memory_info().rss)


def server_of_this_process() -> int:
    """Return the process id of the message server that this process has started.

    Raises:
        RuntimeError: there is none.
    """
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            if any("embedded_backend.server_process" in part for part in child.cmdline()):
                return int(child.pid)
    raise RuntimeError("this process has started no message server")


def now() -> float:
    """Return seconds on the clock that all processes of this machine share."""
    return time.monotonic()
