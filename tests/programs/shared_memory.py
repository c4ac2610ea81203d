"""Sends or receives large parts until it is told to end, or is killed; see `tests/shared.py`.

What it gets on its input are commands, one a line; each is answered by a line of JSON.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import sys
import threading
from typing import Any

from rustic_ai.core.messaging.backend.embedded_backend import EmbeddedMessagingBackend
from rustic_ai.core.messaging.core.message import Message
from tests.shared import SPACE, TOPIC, is_intact, large, pattern


class Receiver:
    """Checks what comes; keeps the parts that it is told to keep.

    Args:
        backend: where from.
        keep: how many of the parts to keep, the latest ones.
    """

    def __init__(self, backend: EmbeddedMessagingBackend, keep: int) -> None:
        self.backend, self.keep = backend, keep
        self.held: list[Message] = []
        self.seen = self.wrong = self.lost = self.writable = 0
        self.last = self.last_lost = -1
        self.changed = threading.Condition()

    def __call__(self, message: Message) -> None:
        """Take a message."""
        with self.changed:
            self.seen += 1
            self.last = message.payload["n"]
            for part in message.parts:
                if not isinstance(part, memoryview):
                    self.lost += 1
                    self.last_lost = self.last
                else:
                    self.wrong += not is_intact(part, message.payload["n"])
                    self.writable += not part.readonly
            self.held.append(message)
            del self.held[: max(0, len(self.held) - self.keep)]
            self.changed.notify()

    def facts(self, seen: int = 0) -> dict[str, Any]:
        """Return what came, once so many did; and whether what is held is as it was."""
        with self.changed:
            self.changed.wait_for(lambda: self.seen >= seen, timeout=20)
            held = [
                is_intact(part, message.payload["n"])
                for message in self.held
                for part in message.parts
                if isinstance(part, memoryview)
            ]
            return {
                "seen": self.seen,
                "wrong": self.wrong,
                "lost": self.lost,
                "last": self.last,
                "last_lost": self.last_lost,
                "writable": self.writable,
                "held": len(held),
                "changed": held.count(False),
            }


def receive(backend: EmbeddedMessagingBackend, keep: str, durable: str = "") -> None:
    """Receive until the input ends."""
    receiver = Receiver(backend, int(keep))
    name = durable or f"reader-{os.getpid()}"
    backend.subscribe(TOPIC, receiver, subscriber=name, durable=bool(durable), from_start=True)
    backend.start()
    answer({})
    for line in sys.stdin:
        command, *words = line.split()
        if command == "clean":
            backend.cleanup()
        elif command == "drop":
            with receiver.changed:  # nor is kept what comes after that
                receiver.keep = 0
                receiver.held.clear()
        elif command == "collect":
            gc.collect()
        elif command == "fork":
            child = os.fork()
            if not child:
                os._exit(bool(receiver.facts()["changed"]))
            assert os.waitpid(child, 0)[1] == 0
        answer(receiver.facts(*map(int, words)))


def send(backend: EmbeddedMessagingBackend, size: str) -> None:
    """Send as much as there is room for, until the input ends."""
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    answer({})
    number = os.getpid() * 1000
    while not ended.is_set():
        number += 1
        backend.store_message(SPACE, TOPIC, large(number, pattern(number, int(size))))


def answer(facts: dict[str, Any]) -> None:
    """Write a line."""
    print(json.dumps(facts), flush=True)


def main(role: str, port: str, *arguments: str) -> None:
    """Play a role."""
    backend = EmbeddedMessagingBackend(
        port=int(port), auto_start_server=False, reconnect_timeout=20, shared_memory=64 << 20
    )
    with contextlib.closing(sys.stdin):
        {"receive": receive, "send": send}[role](backend, *arguments)
    backend.cleanup()


if __name__ == "__main__":
    main(*sys.argv[1:])
