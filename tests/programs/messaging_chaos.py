"""Publishes, relays or listens until it is told to end, or is killed; see `tests/chaos.py`."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from rustic_ai.core.messaging.backend.embedded_backend import EmbeddedMessagingBackend
from rustic_ai.core.messaging.core.envelope import AgentTag
from rustic_ai.core.messaging.core.message import Message
from rustic_ai.core.messaging.core.message_id import GemstoneGenerator
from rustic_ai.core.messaging.core.stop_signal import StopSignal
from tests.chaos import INPUT, OUTPUT, SPACE, last_acknowledged

LEAD = 200
"""By how much a publisher may be ahead of what has been relayed."""


class Log:
    """A file of lines, each there whole or not at all, however the process ends."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(self, *words: object) -> None:
        """Add a line."""
        os.write(self._fd, " ".join(map(str, words)).encode() + b"\n")


class Publisher:
    """Publishes numbered messages, and logs each number once it was acknowledged.

    Args:
        backend: where to.
        log: its log, of its former lives, too.
        batch: how many to send before it waits for the word that they are stored.
    """

    def __init__(self, backend: EmbeddedMessagingBackend, log: Path, batch: int) -> None:
        self._backend, self._batch = backend, batch
        self._next = last_acknowledged(log) + 1
        self._life = os.getpid()
        self._log = Log(log)
        self._relayed = self._next - 1
        self._moved = threading.Condition()
        self._ids = GemstoneGenerator()
        self._log.write("life", self._life, self._next)

    def note(self, message: Message) -> None:
        """See how far the relay is."""
        if message.payload["life"] == self._life:
            with self._moved:
                self._relayed = message.payload["n"]
                self._moved.notify()

    def _messages(self) -> Iterator[Message]:
        for n in range(self._next, self._next + self._batch):
            yield Message(
                id_obj=self._ids.get_id(),
                sender=AgentTag("publisher", "publisher"),
                topics="in",
                payload={"n": n, "life": self._life},
            )

    def publish_batch(self) -> None:
        """Send some, wait for the last one to be stored, and so for all."""
        with self._moved:
            self._moved.wait_for(lambda: self._next - self._relayed < LEAD, timeout=0.2)
        *first, last = self._messages()
        for message in first:
            self._backend.send_message(SPACE, INPUT, message)
        self._backend.store_message(SPACE, INPUT, last)
        self._next += self._batch
        self._log.write("stored", self._life, self._next - 1)


def publish(backend: EmbeddedMessagingBackend, stop: StopSignal, log: Path, batch: int) -> None:
    publisher = Publisher(backend, log, batch)
    backend.subscribe(OUTPUT, publisher.note, subscriber=f"publisher-{os.getpid()}")
    backend.start()
    while not stop.is_set():
        publisher.publish_batch()


def relay(backend: EmbeddedMessagingBackend, stop: StopSignal) -> None:
    def pass_on(message: Message) -> None:
        how = backend.store_message if message.payload["n"] % 2 else backend.send_message
        how(SPACE, OUTPUT, message)

    backend.subscribe(INPUT, pass_on, subscriber="relay", durable=True, from_start=True)
    backend.serve(stop)


def listen(backend: EmbeddedMessagingBackend, stop: StopSignal, path: Path) -> None:
    log = Log(path)
    log.write("life", os.getpid(), 0, 0)

    def note(message: Message) -> None:
        log.write("got", message.payload["life"], message.payload["n"], message.attempt)

    backend.subscribe(OUTPUT, note, subscriber="sink", durable=True, from_start=True)
    backend.serve(stop)


def main(role: str, port: str, log: str, batch: str) -> None:
    """Play a role until SIGTERM."""
    with StopSignal() as stop:
        signal.signal(signal.SIGTERM, lambda *_: stop.set())
        backend = EmbeddedMessagingBackend(port=int(port), auto_start_server=False)
        match role:
            case "publisher":
                publish(backend, stop, Path(log), int(batch))
            case "relay":
                relay(backend, stop)
            case "sink":
                listen(backend, stop, Path(log))
        backend.cleanup()


if __name__ == "__main__":
    main(*sys.argv[1:])
