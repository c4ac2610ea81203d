"""Clients that send so many small units that they are read at intervals.

A turn of the loop and a wake-up of each subscriber for every single unit would cost more than all
the rest. Where such a client has a ring, it needs no system call to send, for as long as it is read
so.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from rustic_ai.core.messaging.backend.embedded_backend.connection import Connection
from rustic_ai.core.messaging.backend.embedded_backend.poller import Poller

STREAM: Final = 32
"""Units of one client that make a stream, where they come within `_SPAN` and nothing that it could
have waited for was sent to it in between."""
_SPAN: Final = 0.002
_INTERVAL: Final = 0.0003
"""Seconds between looks at what streams have brought."""


class Streams:
    """Who is read at intervals.

    Args:
        poller: waits for all others.
        listen: says what the poller is to tell of a connection.
        read: reads one; whatever goes wrong costs that one alone.
    """

    def __init__(
        self,
        poller: Poller,
        listen: Callable[[Connection], None],
        read: Callable[[Connection], None],
    ) -> None:
        self._poller = poller
        self._listen = listen
        self._read = read
        self.connections: dict[Connection, None] = {}
        """Who is a stream now."""
        self._due = 0.0

    def wait(self, patience: float | None) -> list[tuple[int, int]]:
        """Wait for others, but not past the time to read the streams, which is done here."""
        now = time.monotonic()
        left = self._due - now
        if left > 0:
            wait = left if patience is None else min(left, patience)
            found = self._poller.poll_briefly(wait) if wait else self._poller.poll(0)
            if found:
                return found
            now = time.monotonic()
            if now < self._due:
                return found
        self._due = now + _INTERVAL
        for connection in list(self.connections):
            self._read(connection)
            if connection in self.connections and not self._is_one(connection, now):
                self.end(connection)
                self._listen(connection)
                if connection.session.ring is not None:
                    # What it wrote before it could see that nobody looks any more. The system call
                    # before this keeps store and load in order.
                    self._read(connection)
        return []

    def consider(self, connection: Connection) -> None:
        """Look, after `STREAM` units, whether a client sends one after the other unasked."""
        if connection not in self.connections and self._is_one(connection, time.monotonic()):
            self.connections[connection] = None
            self.watch(connection)
            self._listen(connection)

    def watch(self, connection: Connection) -> None:
        """Tell a client that its ring is looked at, where it is and has one."""
        ring = connection.session.ring
        if ring is not None and connection in self.connections:
            ring.watch(looks=True)

    def _is_one(self, connection: Connection, now: float) -> bool:
        """Say whether the last units of a client came close together."""
        producer = connection.session.producer
        assert producer is not None
        elapsed = now - connection.counted_at
        if producer.units - connection.units >= STREAM:
            connection.units, connection.counted_at = producer.units, now
        return elapsed < _SPAN

    def end(self, connection: Connection) -> None:
        """Read a client no more at intervals. Idempotent."""
        if connection in self.connections:
            del self.connections[connection]
            if connection.session.ring is not None:
                connection.session.ring.watch(looks=False)
