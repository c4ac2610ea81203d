"""A publisher, a relay, a sink and their server, killed at random; and what must hold then."""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import psutil
import pytest

from rustic_ai.core.messaging.backend.embedded_backend import EmbeddedMessagingBackend
from rustic_ai.core.messaging.backend.embedded_backend.access import clean_dead
from rustic_ai.core.testing.waiting import wait_until

SPACE = "chaos"
INPUT = "chaos:in"
OUTPUT = "chaos:out"
PROGRAMS = Path(__file__).parent / "programs"
BOUNDS = {"topic_bytes": 1 << 30, "total_bytes": 1 << 31, "topic_count": 10_000_000}
"""Nothing of the history may go: it is what the promises are checked against."""

Numbered = tuple[int, int]
"""Life of the publisher, and the number of its message."""


def lines_of(log: Path) -> list[list[str]]:
    """Return the words of each line; none where there is no log yet."""
    if not log.exists():
        return []
    return [line.split() for line in log.read_text().splitlines()]


def last_acknowledged(log: Path) -> int:
    """Return the last number that the log of a publisher says is stored; -1: none."""
    return max((int(words[2]) for words in lines_of(log) if words[0] == "stored"), default=-1)


def start(program: str, *arguments: object) -> subprocess.Popen[bytes]:
    """Start a program of `tests/programs`."""
    return subprocess.Popen(
        [sys.executable, str(PROGRAMS / program), *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        start_new_session=True,
    )


def kill(process: subprocess.Popen[bytes]) -> None:
    """`kill -9`, and collect."""
    process.kill()
    process.communicate()


class Broker(ABC):
    """A message server that can be killed, and is there again soon."""

    @abstractmethod
    def kill(self) -> None:
        """`kill -9`; returns when it is gone, or another is there."""

    @abstractmethod
    def close(self) -> None:
        """End it for good."""


class ServerProgram(Broker):
    """A server that the test starts again itself, on the same port and directory.

    Args:
        port: where.
        settings: of `EmbeddedServer`.
    """

    def __init__(self, port: int, settings: dict[str, Any]) -> None:
        self._arguments = port, json.dumps(settings)
        self.start()

    def start(self) -> None:
        """Start it; returns when it listens."""
        self.process = start("message_server.py", *self._arguments)
        assert self.process.stdout is not None
        answer = json.loads(self.process.stdout.readline())
        assert "port" in answer, answer

    def kill(self) -> None:
        """Kill it, and start another."""
        kill(self.process)
        self.start()

    def close(self) -> None:
        """Let it end; it removes its files itself."""
        self.process.communicate(timeout=20)
        assert self.process.returncode == 0


class OwnedBroker(Broker):
    """A server that the backend of this program starts, and starts again by itself.

    Args:
        port: where.
        settings: of `EmbeddedServer`.
    """

    def __init__(self, port: int, settings: dict[str, Any]) -> None:
        self._backend = EmbeddedMessagingBackend(port=port, **settings)
        self._backend.start()

    @property
    def _servers(self) -> list[psutil.Process]:
        found = []
        for child in psutil.Process().children():
            with contextlib.suppress(psutil.NoSuchProcess):
                if "server_process" in " ".join(child.cmdline()):
                    found.append(child)
        return found

    def kill(self) -> None:
        """Kill the server process; the backend sees to the rest."""
        (server,) = wait_until(lambda: self._servers)
        server.kill()

    def close(self) -> None:
        """Close the backend, and so its server."""
        self._backend.cleanup()


class Chaos:
    """The processes, and their logs.

    Args:
        broker: the server.
        port: where it is.
        folder: for the logs.
        batch: how many messages the publisher sends before it waits for the server's word.
        seed: of what happens when.
    """

    def __init__(self, broker: Broker, port: int, folder: Path, batch: int, seed: int) -> None:
        self.broker = broker
        self._port, self._folder, self._batch = port, folder, batch
        self._rng = random.Random(seed)
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._next: list[str] = []
        self.kills: dict[str, int] = {}

    def log(self, role: str) -> Path:
        """Return where a role keeps its log."""
        return self._folder / role

    def start(self, role: str) -> None:
        """Start a process that plays a role."""
        arguments = role, self._port, self.log(role), self._batch
        self._running[role] = start("messaging_chaos.py", *arguments)

    def kill_one(self, roles: list[str]) -> None:
        """Look on for a random time, in which none may end by itself; then kill one of the roles.

        It may be one that was killed just before and is not ready yet.
        """
        if not self._next:  # each of them in turn, in an order of its own
            self._next = self._rng.sample(roles, len(roles))
        role = self._next.pop()
        witness = self._running[self._rng.choice(["publisher", "relay", "sink"])]
        with pytest.raises(subprocess.TimeoutExpired):
            witness.wait(self._rng.choice([0.0, 0.1, 0.3, 0.5]) + self._rng.random() * 0.1)
        self.kills[role] = self.kills.get(role, 0) + 1
        if role == "broker":
            self.broker.kill()
        else:
            kill(self._running[role])
            self.start(role)

    def finish(self) -> None:
        """Let the publisher end, all of its messages arrive, and then the others end."""
        publisher = self.log("publisher")
        before = last_acknowledged(publisher)
        wait_until(lambda: last_acknowledged(publisher) > before, timeout=30)
        self._end("publisher")
        last = [words for words in lines_of(publisher) if words[0] == "stored"][-1]
        arrived = f"got {last[1]} {last[2]} "
        wait_until(lambda: arrived in self.log("sink").read_text()[-100_000:], timeout=60)
        self._end("relay")
        self._end("sink")

    def _end(self, role: str) -> None:
        process = self._running[role]
        process.terminate()
        process.communicate(timeout=30)
        assert process.returncode == 0, f"the {role} ended with exit code {process.returncode}"

    def history(self, topic: str) -> list[Numbered]:
        """Return what stands in a topic."""
        reader = EmbeddedMessagingBackend(port=self._port, auto_start_server=False)
        try:
            messages = reader.get_messages_for_topic(topic)
        finally:
            reader.cleanup()
        return [(message.payload["life"], message.payload["n"]) for message in messages]

    # What must hold

    def check(self) -> int:
        """Check all promises; returns how many messages they were checked with."""
        stored = self.history(INPUT)
        self._check_publisher(stored)
        # The relay's outputs and its acknowledgements were one: none is missing, none is there
        # twice, and they are in the order of its inputs.
        relayed = self.history(OUTPUT)
        assert relayed == stored, _difference(relayed, stored)
        self._check_sink(relayed)
        return len(stored)

    def _check_publisher(self, stored: list[Numbered]) -> None:
        """Everything acknowledged is stored; what one life sent is there once and in order.

        A later life cannot know what became of the unacknowledged end of the one before, and
        sends it again as its own.
        """
        by_life: dict[int, list[int]] = {}
        for life, n in stored:
            by_life.setdefault(life, []).append(n)
        first: dict[int, int] = {}
        acknowledged: dict[int, int] = {}
        for kind, life, n in lines_of(self.log("publisher")):
            (first if kind == "life" else acknowledged)[int(life)] = int(n)
        assert set(by_life) <= set(first)
        for life, begin in first.items():
            found = by_life.get(life, [])
            assert found == list(range(begin, begin + len(found))), f"life {life} is out of order"
            assert begin + len(found) > acknowledged.get(life, begin - 1), f"life {life} lost some"
        numbers = {n for _, n in stored}
        assert numbers == set(range(len(numbers)))

    def _check_sink(self, relayed: list[Numbered]) -> None:
        """Each life of the sink goes on with what no former one had acknowledged, without a gap."""
        place = {numbered: position for position, numbered in enumerate(relayed)}
        reached = -1
        at: int | None = None
        for kind, life, n, attempt in lines_of(self.log("sink")):
            if kind == "life":
                at = None
                continue
            now = place[int(life), int(n)]
            assert now <= reached + 1, f"the sink missed {now - reached - 1} before {now}"
            assert at is None or now == at + 1, f"the sink got {now} after {at}"
            if "broker" not in self.kills and now <= reached:
                assert int(attempt) > 1, f"{now} comes again and does not say so"
            at, reached = now, max(reached, now)
        assert reached == len(relayed) - 1

    def __enter__(self) -> Self:
        for role in ("sink", "relay", "publisher"):
            self.start(role)
        wait_until(lambda: last_acknowledged(self.log("publisher")) >= 0, timeout=30)
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._running.values():
            kill(process)
        self.broker.close()
        clean_dead()


def _difference(found: list[Numbered], wanted: list[Numbered]) -> str:
    missing, doubled = len(set(wanted) - set(found)), len(found) - len(set(found))
    both = enumerate(zip(found, wanted, strict=False))
    at = next((n for n, (f, w) in both if f != w), min(len(found), len(wanted)))
    return f"{missing} missing, {doubled} twice, first difference at {at} of {len(wanted)}"


@contextlib.contextmanager
def seeded(seed: int, kills: dict[str, int]) -> Iterator[None]:
    """Say, where something fails, how to do the same again."""
    try:
        yield
    except BaseException:
        print(f"RUSTIC_CHAOS_SEED={seed}; kills so far: {kills}")
        raise
