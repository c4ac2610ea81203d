"""Who is known to a server beyond a connection. Without any I/O."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from rustic_ai.core.errors import ProtocolError
from rustic_ai.core.messaging.backend.embedded_backend.session import Producer, Session


class Clients:
    """Clients by their number, and how many of their units are stored.

    Args:
        most: clients that are remembered without a connection.
        forget: is told of clients that need not be remembered, where somebody does.
    """

    def __init__(self, most: int, forget: Callable[[int], None]) -> None:
        self._most = most
        self._forget = forget
        self._known: dict[int, Producer] = {}

    def restore(self, units: Mapping[int, int]) -> None:
        """Take up what a journal remembers: client -> how many of its units are stored."""
        for client, count in units.items():
            self._known[client] = Producer(client, count)

    def session_of(self, client: int) -> Session | None:
        """Return the session of a client, where it is connected."""
        producer = self._known.get(client)
        return producer.session if producer is not None else None

    def open_channel(self, session: Session, client: int, *, for_ring: bool) -> None:
        """Let a connection carry descriptors of a client, and nothing else.

        Raises:
            ProtocolError: the client is not connected, or not proven to be the same user.
        """
        if not (client and session.trusted and self.session_of(client)):
            raise ProtocolError(summary="a channel for descriptors of a client that is not here")
        session.channel_of, session.greeted, session.brings_ring = client, True, for_ring

    def open(self, client: int) -> Producer:
        """Return what is known of a client, from now on."""
        producer = self._known.get(client)
        if producer is None:
            producer = self._known[client] = Producer(client)
        return producer

    def left(self, session: Session) -> None:
        """Take note that a session has ended."""
        producer = session.producer
        if producer is None or producer.session is not session:
            return
        producer.session = None
        if session.said_goodbye:
            self._drop(producer)
        elif len(self._known) > self._most:
            oldest = next((p for p in self._known.values() if p.session is None), None)
            if oldest is not None:
                self._drop(oldest)

    def _drop(self, producer: Producer) -> None:
        self._known.pop(producer.client, None)
        self._forget(producer.client)
