"""The smallest store that a `RemoteMessagingBackend` can talk to: in this process, in a dict."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from rustic_ai.core.messaging.backend.remote import (
    Delivery,
    Output,
    Place,
    RemoteMessagingBackend,
)
from rustic_ai.core.messaging.core.capabilities import Capabilities


@dataclass(slots=True)
class Log:
    """A topic: what was stored when, and how far each durable subscriber has got."""

    namespace: str = ""
    entries: list[tuple[int, bytes]] = field(default_factory=list)
    acked: dict[str, int] = field(default_factory=dict)


class Shelf:
    """All topics, and who listens; `changed` is its lock, too."""

    def __init__(self) -> None:
        self.logs: dict[str, Log] = {}
        self.changed = threading.Condition()
        self.open: list[Place] = []

    def log(self, topic: str) -> Log:
        """Return a topic, made on first use."""
        return self.logs.setdefault(topic, Log())


class ShelfBackend(RemoteMessagingBackend):
    """One connection to a shelf; a thread per place fetches."""

    capabilities = Capabilities(steps=True)

    def __init__(self, shelf: Shelf) -> None:
        super().__init__("shelf")
        self._shelf = shelf
        self._threads: list[threading.Thread] = []

    def _append(self, outputs: Sequence[Output]) -> None:
        with self._shelf.changed:
            for output in outputs:
                log = self._shelf.log(output.topic)
                log.namespace = output.namespace
                log.entries.append((time.time_ns() // 1_000_000, output.record))
            self._shelf.changed.notify_all()

    def _commit(self, settled: Sequence[Delivery], outputs: Sequence[Output]) -> None:
        with self._shelf.changed:
            self._append(outputs)
            for delivery in settled:
                acked = self._shelf.log(delivery.place.topic).acked
                if delivery.place.subscriber in acked:
                    acked[delivery.place.subscriber] = delivery.token

    def _open_place(self, place: Place) -> None:
        with self._shelf.changed:
            log = self._shelf.log(place.topic)
            position = 0 if place.from_start else len(log.entries)
            if place.durable:
                position = log.acked.setdefault(place.subscriber, position)
            self._shelf.open.append(place)
        thread = threading.Thread(target=self._fetch, args=(place, log, position))
        self._threads.append(thread)
        thread.start()

    def _fetch(self, place: Place, log: Log, position: int) -> None:
        changed = self._shelf.changed
        while self._await_room(place):
            with changed:
                while len(log.entries) <= position and place.handler is not None:
                    changed.wait()
                new = log.entries[position : position + 100]
                records = enumerate(new, position + 1)
                self._deliver([Delivery(place, record, 1, n) for n, (_, record) in records])
                position += len(new)

    def _close_place(self, place: Place, *, forget: bool) -> None:
        with self._shelf.changed:
            self._shelf.open.remove(place)
            if forget:
                self._shelf.log(place.topic).acked.pop(place.subscriber, None)
            self._shelf.changed.notify_all()

    def declare(
        self, namespace: str, topic: str, subscriber: str, *, from_start: bool = False
    ) -> None:
        """Make a place."""
        with self._shelf.changed:
            log = self._shelf.log(topic)
            log.namespace = namespace
            log.acked.setdefault(subscriber, 0 if from_start else len(log.entries))

    def disown(self, namespace: str, subscriber: str) -> None:
        """Give places up."""
        with self._shelf.changed:
            for log in self._shelf.logs.values():
                if log.namespace == namespace:
                    log.acked.pop(subscriber, None)

    def load_subscribers(self, namespace: str) -> dict[str, list[str]]:
        """List who is there."""
        self._check()
        found: dict[str, list[str]] = {}
        for place in self._shelf.open:
            if place.topic.startswith(f"{namespace}:"):
                found.setdefault(place.topic, []).append(place.subscriber)
        return {topic: sorted(names) for topic, names in found.items()}

    def _scan(self, topic: str, since_ms: int) -> Iterator[bytes]:
        with self._shelf.changed:
            entries = list(self._shelf.logs.get(topic, Log()).entries)
        return (record for stored, record in entries if stored >= since_ms)

    def _topics_of(self, namespace: str) -> list[str]:
        return [name for name, log in self._shelf.logs.items() if log.namespace == namespace]

    def _disconnect(self) -> None:
        with self._shelf.changed:
            self._shelf.open = [p for p in self._shelf.open if p not in self._places.values()]
            self._shelf.changed.notify_all()
        for thread in self._threads:
            thread.join()
