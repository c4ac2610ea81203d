"""Processes by `multiprocessing` spawn that play a role, and how to talk to them."""

from __future__ import annotations

import contextlib
import multiprocessing
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any

from benchmarks.peers.peer import PATIENCE

SPAWN = multiprocessing.get_context("spawn")


class Child:
    """A process that runs a role: a function of this line to its parent, and of what is given."""

    def __init__(self, role: Callable[..., None], *given: Any) -> None:
        self.line, theirs = SPAWN.Pipe()
        self.process = SPAWN.Process(target=_play, args=(role, theirs, *given), daemon=True)
        self.process.start()
        theirs.close()

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self.process.pid is not None
        return self.process.pid

    def hear(self) -> Any:
        """Return its next word.

        Raises:
            TimeoutError: it said nothing.
            EOFError: it has ended.
        """
        if not self.line.poll(PATIENCE):
            raise TimeoutError(f"{self.process.name} said nothing for {PATIENCE:g} s")
        return self.line.recv()

    def tell(self, word: Any = None) -> None:
        """Say something to it, such as that it may begin."""
        self.line.send(word)

    def stop(self) -> None:
        """End it: a role ends when its line does."""
        self.line.close()
        self.process.join(1)
        self.process.kill()
        self.process.join()


def _play(role: Callable[..., None], line: Connection, *given: Any) -> None:
    with contextlib.suppress(EOFError, BrokenPipeError):
        role(line, *given)


def rendezvous(line: Connection) -> None:
    """In a role: say that all is set, and wait for the word to begin."""
    line.send("ready")
    line.recv()


@contextlib.contextmanager
def all_of(*children: Child) -> Iterator[None]:
    """Let all begin once all are ready, and end all at the end of the block."""
    try:
        for child in children:
            child.hear()
        for child in children:
            child.tell()
        yield
    finally:
        for child in children:
            child.stop()
