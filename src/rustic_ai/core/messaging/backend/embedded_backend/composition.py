"""Messages to the frames that carry them, and back."""

from __future__ import annotations

import logging
from collections.abc import Callable

from rustic_ai.core.errors import ProtocolError
from rustic_ai.core.messaging.backend.embedded_backend.client import ServerClient
from rustic_ai.core.messaging.backend.embedded_backend.protocol import (
    DEAD,
    LARGE,
    SHARED,
    in_ms,
    pack_publish,
)
from rustic_ai.core.messaging.core.attachment import LostPart, Part, Place, pack_inline, pack_parts
from rustic_ai.core.messaging.core.codec import decode_message, encode_envelope
from rustic_ai.core.messaging.core.dead_letter import pack_dead_letter, unpack_dead_letter
from rustic_ai.core.messaging.core.message import Message

logger = logging.getLogger(__name__)


def frame_of(message: Message, topic: int, flags: int, client: ServerClient) -> bytes:
    """Return the PUBLISH frame of a message; large parts go into shared memory where there is some.

    Args:
        message: the message.
        topic: number of the topic.
        flags: of the frame.
        client: whose shared memory it is.
    """
    envelope = message.envelope
    body = encode_envelope(envelope)
    if message.parts:
        body, more = _with_parts(message, body, client)
        flags |= more
    if message.dead_letter is not None:
        body, flags = pack_dead_letter(message.dead_letter, body), flags | DEAD
    ttl_ms = in_ms(envelope.ttl) if envelope.ttl is not None else 0
    return pack_publish(topic, envelope.id, body, ttl_ms, flags)


def _with_parts(message: Message, envelope: bytes, client: ServerClient) -> tuple[bytes, int]:
    exchange = client.share()
    if exchange is None:
        return pack_inline(envelope, message.parts), LARGE
    places, lying = exchange.put(message.parts)
    if len(message.topics) > 1:
        message.parts = tuple(lying)
    try:
        client.run_errands()
        body = pack_parts(envelope, list(zip(places, message.parts, strict=True)))
    except BaseException:
        exchange.take_back(places)
        raise
    flags = (SHARED if any(places) else 0) | (0 if all(places) else LARGE)
    return body, flags


def message_of(
    body: memoryview,
    flags: int,
    topic: str | None,
    attempt: int,
    fetch: Callable[[Place], Part],
) -> Message | None:
    """Return the message of a frame's body; None where it cannot be read, which is logged."""
    try:
        if flags & DEAD:
            note, rest = unpack_dead_letter(body)
            return decode_message(rest, note.topic, note.attempts + attempt, note, fetch)
        return decode_message(body, topic, attempt, None, fetch)
    except ProtocolError:
        logger.exception("a message on topic %r cannot be read, skipped", topic)
        return None


def fetch_from(client: ServerClient, *, old: bool) -> Callable[[Place], Part]:
    """Return what fetches parts from shared memory; `old`: of messages that may be handled."""

    def fetch(place: Place) -> Part:
        exchange = client.share()
        if exchange is None:
            return LostPart("it lies in memory of the machine that it was sent from")
        return exchange.fetch_old(place) if old else exchange.fetch(place)

    return fetch
