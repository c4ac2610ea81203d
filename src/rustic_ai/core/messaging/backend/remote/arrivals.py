"""What has come for the subscriptions of one object, until a handler takes it."""

from __future__ import annotations

import select
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from rustic_ai.core.messaging.core.bell import Bell
from rustic_ai.core.messaging.core.messaging_backend import MessageHandler
from rustic_ai.core.messaging.core.stop_signal import StopSignal

ROOM = 1024
"""Deliveries of one place that may wait here."""


@dataclass(slots=True, eq=False)
class Place:
    """A subscription, and how much waits for it here."""

    topic: str
    subscriber: str
    durable: bool
    from_start: bool
    max_attempts: int
    handler: MessageHandler | None
    """None: it has ended."""
    waiting: int = 0


class Delivery(NamedTuple):
    """A message that the store has given us; `token` is what it is acknowledged by."""

    place: Place
    record: bytes
    attempt: int
    token: Any


class Arrivals:
    """A queue between the threads that fetch and the one that handles. Safe from any thread."""

    def __init__(self) -> None:
        self._waiting: deque[Delivery] = deque()
        self._changed = threading.Condition()
        self._bell = Bell()
        self._closed = False

    def put(self, deliveries: Sequence[Delivery]) -> None:
        """Add deliveries in their order."""
        with self._changed:
            if self._closed:
                return
            for delivery in deliveries:
                delivery.place.waiting += 1
            was_empty = not self._waiting
            self._waiting.extend(deliveries)
            if was_empty and self._waiting:
                self._bell.ring()

    def take(self) -> Delivery | None:
        """Return the next one; None where nothing waits."""
        with self._changed:
            if not self._waiting:
                return None
            delivery = self._waiting.popleft()
            place = delivery.place
            place.waiting -= 1
            if place.waiting == ROOM // 2:
                self._changed.notify_all()
            return delivery

    def await_room(self, place: Place) -> bool:
        """Wait until few deliveries of a place wait; False: it has ended, or everything has."""
        with self._changed:
            if place.waiting >= ROOM:
                self._changed.wait_for(lambda: self._closed or place.waiting <= ROOM // 2)
            return not self._closed and place.handler is not None

    def forget(self, place: Place) -> None:
        """Drop what waits for a place that has ended."""
        with self._changed:
            self._waiting = deque(d for d in self._waiting if d.place is not place)
            place.waiting = 0
            self._changed.notify_all()

    def wait(self, stop: StopSignal) -> None:
        """Wait until something has come, `stop` is set, or it was woken."""
        poller = select.poll()
        poller.register(stop, select.POLLIN)
        poller.register(self._bell, select.POLLIN)
        if any(fd == self._bell.fileno() for fd, _ in poller.poll()):
            self._bell.hush()

    def wake(self) -> None:
        """Have `wait` return."""
        with self._changed:
            if not self._closed:
                self._bell.ring()

    def close(self) -> None:
        """Let everybody go who waits here; idempotent."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._waiting.clear()
            self._changed.notify_all()
            self._bell.close()
