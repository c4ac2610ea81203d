"""When a client sends through a ring, and how it comes to one."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable

from rustic_ai.core.errors import BackendUnavailableError
from rustic_ai.core.messaging.backend.embedded_backend.dial import Link
from rustic_ai.core.messaging.backend.embedded_backend.protocol import Op
from rustic_ai.core.messaging.backend.embedded_backend.wire import Wire

logger = logging.getLogger(__name__)

LOOK_AFTER = 512
"""Units after which a publisher that does not wait looks for the word of what is stored: letting
go of them early, it works in memory that is still in the processor's cache."""
_FAST = 0.02
"""Seconds between two looks below which a client sends one unit after the other: who waits for
answers in between takes longer."""
_TIMES = 4
"""How often in a row it must have been so fast: a ring takes a millisecond to make."""


class Shortcut:
    """Gives a client a ring once it sends so fast that the server reads it at intervals.

    Args:
        wire: the connection.
        client: number of the client.
        open_channel: connects to the server once more; errors as `dial_channel`.
    """

    def __init__(self, wire: Wire, client: int, open_channel: Callable[[], socket.socket]) -> None:
        self._wire = wire
        self._client = client
        self._open_channel = open_channel
        self._looked_at = 0.0
        self._fast = 0
        self._tried: Link | None = None
        """The connection for which there is a ring, or can be none."""

    def look(self) -> None:
        """Look for the server's word, after `LOOK_AFTER` units."""
        self._wire.peek()
        now = time.monotonic()
        self._fast = self._fast + 1 if now - self._looked_at < _FAST else 0
        self._looked_at = now
        link = self._wire.link
        if self._fast < _TIMES or link is self._tried:
            return
        self._tried = link
        if link.path == "unix":
            try:
                self._make(link)
            except (BackendUnavailableError, OSError) as e:
                logger.debug("no ring to the message server: %s", e)

    def _make(self, link: Link) -> None:
        from rustic_ai.core.messaging.backend.embedded_backend.shared import ring
        from rustic_ai.core.messaging.backend.embedded_backend.shared.channel import Channel

        if not ring.SUPPORTED:
            return
        channel = Channel(self._open_channel(), self._client, Op.RING)
        try:
            fd = ring.RingWriter.make()
            try:
                writer = ring.RingWriter(fd)
                if channel.offer_ring(fd):
                    self._wire.use(writer, link)
            finally:
                os.close(fd)
        finally:
            channel.close()
