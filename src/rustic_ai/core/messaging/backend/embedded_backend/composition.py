"""Messages to the frames that carry them, and back."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Final

from rustic_ai.core.errors import ProtocolError
from rustic_ai.core.messaging.backend.embedded_backend.client import ServerClient
from rustic_ai.core.messaging.backend.embedded_backend.protocol import (
    DEAD,
    HANDLED,
    LARGE,
    SHARED,
    in_ms,
    pack_publish,
    pack_publish_of,
)
from rustic_ai.core.messaging.core.attachment import LostPart, Part, Place, pieces_of
from rustic_ai.core.messaging.core.codec import decode_message
from rustic_ai.core.messaging.core.dead_letter import pack_dead_letter, unpack_dead_letter
from rustic_ai.core.messaging.core.envelope import encode_envelope
from rustic_ai.core.messaging.core.message import EncodedMessage, Message
from rustic_ai.core.messaging.core.messaging_backend import MessageHandler

logger: Final = logging.getLogger(__name__)

_SPECIAL: Final = DEAD | SHARED | LARGE
"""Flags of what is more than an envelope."""


def frame_of(message: Message, topic: int, flags: int, client: ServerClient) -> bytes:
    """Return the PUBLISH frame of a message; large parts go into shared memory where there is some.

    Args:
        message: the message.
        topic: number of the topic.
        flags: of the frame.
        client: whose shared memory it is.
    """
    if message.encoded:  # nearly always
        return pack_publish(topic, message.id, message.encoded, 0, flags)
    envelope = message.envelope
    body = encode_envelope(envelope)
    ttl_ms = in_ms(envelope.ttl) if envelope.ttl is not None else 0
    if message.parts:
        return _frame_with_parts(message, body, topic, ttl_ms, flags, client)
    if message.dead_letter is not None:
        body, flags = pack_dead_letter(message.dead_letter, body), flags | DEAD
    return pack_publish(topic, envelope.id, body, ttl_ms, flags)


def _frame_with_parts(
    message: Message, envelope: bytes, topic: int, ttl_ms: int, flags: int, client: ServerClient
) -> bytes:
    places: Sequence[Place | None] = [None] * len(message.parts)
    exchange = client.share()
    if exchange is not None:
        places, lying = exchange.put(message.parts)
        if len(message.topics) > 1:
            message.parts = tuple(lying)
    flags |= (SHARED if any(places) else 0) | (0 if all(places) else LARGE)
    try:
        if exchange is not None:
            client.run_errands()
        pieces = pieces_of(envelope, list(zip(places, message.parts, strict=True)))
    except BaseException:
        if exchange is not None:
            exchange.take_back(places)
        raise
    if message.dead_letter is not None:
        pieces.insert(0, pack_dead_letter(message.dead_letter, b""))
        flags |= DEAD
    return pack_publish_of(topic, message.id, pieces, ttl_ms, flags)


def message_of(
    body: bytes | memoryview,
    flags: int,
    topic: str | None,
    attempt: int,
    client: ServerClient,
) -> Message | None:
    """Return the message of a frame's body; None where it cannot be read, which is logged.

    Args:
        body: what follows the frame's header, in whole or in part.
        flags: of the frame, and of its delivery.
        topic: where it comes from.
        attempt: for the how-manieth time.
        client: whose shared memory it is.
    """
    try:
        fetch = _fetch_from(client, flags) if flags & SHARED else None
        if flags & DEAD:
            note, rest = unpack_dead_letter(body)
            return decode_message(rest, note.topic, note.attempts + attempt, note, fetch)
        return decode_message(body, topic, attempt, None, fetch)
    except ProtocolError:
        logger.exception("a message on topic %r cannot be read, skipped", topic)
        return None


class Receiver:
    """Reads the messages of a topic, and hands them to `handler` while they live.

    Args:
        topic: where they come from.
        handler: gets them.
        client: whose shared memory it is.
    """

    def __init__(self, topic: str, handler: MessageHandler, client: ServerClient) -> None:
        self._topic = topic
        self._handler = handler
        self._client = client

    def receive(
        self, body: bytes | memoryview, flags: int, message_id: int, ttl_ms: int, attempt: int
    ) -> None:
        """Take a body, as `MessageReceiver` says."""
        message: Message | None
        if not (flags & _SPECIAL or ttl_ms):  # nearly always
            assert isinstance(body, bytes)
            message = EncodedMessage(body, message_id, None, self._topic, attempt)
        else:
            message = message_of(body, flags, self._topic, attempt, self._client)
            if message is None or message.is_expired(time.time() * 1000):
                return
        self._handler(message)


def _fetch_from(client: ServerClient, flags: int) -> Callable[[Place], Part]:
    exchange = client.share()
    if exchange is None:
        lost = LostPart("it lies in memory of the machine that it was sent from")
        return lambda _: lost
    return exchange.fetch_old if flags & HANDLED else exchange.fetch
