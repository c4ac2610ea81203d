"""The interface of a peer: what each workload asks of it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from benchmarks.peers.looks import Look

PATIENCE = 60.0
"""Seconds that any one answer may take."""


class NotThereError(Exception):
    """A peer does not offer what is asked; says why."""


@dataclass(frozen=True)
class Crash:
    """What follows `kill -9` of an actor with calls in flight; words say why it never does."""

    noticed: float | str
    """Seconds until whoever owns it is told."""
    recovered: float | str
    """Seconds until it answers again, without anybody's doing."""
    lost: int
    """Calls that were accepted and never answered."""


class Peer:
    """One way to have actors in processes; entered, its runtime is up, and it is down afterwards.

    An actor is a process of the operating system, everywhere. What a peer cannot do raises
    `NotThereError`.
    """

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Bring up the runtime, to the point where starting an actor meets nothing cold."""

    def stop(self) -> None:
        """End all actors and the runtime; returns when they are gone. Idempotent."""

    def launch(self, count: int) -> list[int]:
        """Start so many actors; returns their pids when each has answered one message."""
        raise NotThereError("it starts no processes")

    def keep_busy(self) -> None:
        """Have the first actor compute without end."""
        raise NotThereError("it starts no processes")

    def trips(self, n: int, size: int) -> list[float]:
        """Return the seconds of `n` round trips of a message of `size` letters."""
        raise NotThereError("it sends no messages")

    def flow(self, n: int, size: int, receivers: int, batch: int) -> float:
        """Return the seconds from the first send until every receiver has handled all `n`.

        Args:
            n: messages.
            size: letters in each.
            receivers: each gets all of them.
            batch: how many may leave together; 1: each is sent on its own.
        """
        raise NotThereError("it sends no messages")

    def arrays(self, size: int, n: int, look: Look, *, in_place: bool) -> list[float]:
        """Return the seconds from sending `size` bytes of numbers to the answer with a number.

        Each of the `n` arrays is another, so that nothing can be kept from the one before.

        Args:
            size: of each array, in bytes.
            n: how many.
            look: what the receiver does.
            in_place: the sender makes each where it is sent from; that is not timed.
        """
        raise NotThereError("it sends no messages")

    def work(self, job: str, parts: Sequence[Any]) -> tuple[list[Any], float]:
        """Have two warm actors do a job of `jobs` for all parts; returns results and seconds."""
        raise NotThereError("it runs no code")

    def crash(self, calls: int, seconds: float) -> Crash:
        """Kill an actor that has a quarter of its calls behind it, each of which takes so long."""
        raise NotThereError("it runs no code")


def message(number: int, size: int) -> dict[str, Any]:
    """Return a message whose text is a string of its own, so that no pickler finds it again."""
    return {"number": number, "text": f"{number:>{size}}"}


def now() -> float:
    """Return seconds on the clock that all processes of this machine share."""
    return time.monotonic()
