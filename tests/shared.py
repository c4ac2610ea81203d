"""Large parts whose every byte can be checked, and the processes that send and receive them."""

from __future__ import annotations

import contextlib
import functools
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from rustic_ai.core.messaging.backend.embedded_backend import EmbeddedMessagingBackend
from rustic_ai.core.messaging.core.attachment import Part
from rustic_ai.core.messaging.core.envelope import AgentTag
from rustic_ai.core.messaging.core.message import Message
from rustic_ai.core.messaging.core.message_id import GemstoneGenerator
from rustic_ai.core.testing.waiting import wait_until
from tests.chaos import start

SPACE = "shared"
TOPIC = "shared:t"
LARGE = 1 << 18
_ids = GemstoneGenerator()


def pattern(number: int, size: int) -> memoryview:
    """Return bytes that belong to a number, at each place others."""
    return memoryview(fill(np.empty(size, np.uint8), number))


def fill(target: Any, number: int) -> Any:
    """Fill an array in place."""
    target[:] = _expected(number, target.size)
    return target


def is_intact(part: memoryview, number: int) -> bool:
    """Say whether all bytes are those of a number."""
    found = np.frombuffer(part, np.uint8)
    return bool(np.array_equal(found, _expected(number, found.size)))


def _expected(number: int, size: int) -> Any:
    return _ramp(size) + np.uint8(number % 256)


@functools.lru_cache(maxsize=2)
def _ramp(size: int) -> Any:
    return np.resize(np.arange(251, dtype=np.uint8), size)


def large(number: int, *parts: Part) -> Message:
    """Return a message with parts."""
    message = Message(
        id_obj=_ids.get_id(),
        sender=AgentTag("tester", "tester"),
        topics=TOPIC,
        payload={"n": number},
    )
    message.parts = parts
    return message


class Helper:
    """A process of `programs/shared_memory.py`.

    Args:
        arguments: of the program.
    """

    def __init__(self, *arguments: object) -> None:
        self.process = start("shared_memory.py", *arguments)
        self.hear()

    def hear(self) -> dict[str, Any]:
        """Return its next answer."""
        assert self.process.stdout is not None
        found: dict[str, Any] = json.loads(self.process.stdout.readline())
        return found

    def tell(self, *words: object) -> dict[str, Any]:
        """Give a command; return the answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(" ".join(map(str, words)).encode() + b"\n")
        self.process.stdin.flush()
        return self.hear()

    def kill(self) -> None:
        """`kill -9`."""
        self.process.kill()
        self.process.communicate()

    def close(self) -> None:
        """Let it end."""
        self.process.communicate(timeout=20)
        assert self.process.returncode == 0


def memory_files(*pids: int) -> dict[int, int]:
    """Return the memory files of processes, open or mapped: their bytes by inode."""
    found: dict[int, int] = {}
    for pid in pids or our_processes():
        folder = Path(f"/proc/{pid}")
        with contextlib.suppress(OSError):
            for entry in (folder / "fd").iterdir():
                with contextlib.suppress(OSError):
                    if "memfd:rustic" in str(entry.readlink()):
                        facts = entry.stat()
                        found[facts.st_ino] = facts.st_blocks * 512
            for line in (folder / "maps").read_text().splitlines():
                if "memfd:rustic" in line:
                    found.setdefault(int(line.split()[4]), 0)
    return found


def our_processes() -> list[int]:
    """Return this process and all below it."""
    return [os.getpid(), *(child.pid for child in psutil.Process().children(recursive=True))]


def pool_of(backend: EmbeddedMessagingBackend) -> int:
    """Return how many slots of a client are not free, once it has heard what there is to hear."""
    backend.get_statistics()
    exchange = backend._open().exchange
    return exchange.pool.in_use if exchange is not None else 0


def wait_until_free(sender: EmbeddedMessagingBackend, *readers: Helper) -> None:
    """Wait until all slots of a sender are free; where they are not, say who needs them."""
    try:
        wait_until(lambda: pool_of(sender) == 0)
    except AssertionError:
        known = f"{pool_of(sender)} slots; the server: {slots_of(sender)}"
        known += f"; readers: {[reader.tell('collect') for reader in readers]}"
        with contextlib.suppress(AssertionError):
            wait_until(lambda: pool_of(sender) == 0, timeout=3.0)
        left = f"{pool_of(sender)} slots 3 s after a collection in the readers"
        raise AssertionError(f"not free: {known}; {left}") from None


def slots_of(backend: EmbeddedMessagingBackend) -> dict[str, int]:
    """Return what the server knows of slots."""
    found: dict[str, int] = backend.get_statistics()["server"]["shared_memory"]
    return found
