"""Message to body and back: its envelope, and its parts where it has some."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from rustic_ai.core.errors import ProtocolError
from rustic_ai.core.messaging.core.attachment import (
    MARK,
    LostPart,
    Part,
    Place,
    pack_inline,
    unpack_places,
)
from rustic_ai.core.messaging.core.dead_letter import DeadLetterNote
from rustic_ai.core.messaging.core.envelope import decode_envelope, encode_envelope
from rustic_ai.core.messaging.core.message import Message

Fetch = Callable[[Place], Part]
"""Returns a part that lies in shared memory."""


def encode_message(message: Message) -> bytes:
    """Return a message as a body: its envelope as MessagePack, and its parts, where it has some."""
    envelope = message.encoded or encode_envelope(message.envelope)
    return pack_inline(envelope, message.parts) if message.parts else envelope


def decode_message(
    data: bytes | memoryview,
    topic: str | None,
    attempt: int = 1,
    dead_letter: DeadLetterNote | None = None,
    fetch: Fetch | None = None,
) -> Message:
    """Read a body that arrived on `topic`; the payload stays bytes.

    Args:
        data: the body.
        topic: where it came from.
        attempt: for the how-manieth time.
        dead_letter: why it was given up.
        fetch: returns parts that do not stand in the body; None: they are out of reach.

    Raises:
        ProtocolError: `data` is not a message.
    """
    try:
        if data and data[0] == MARK:
            return _decode_parts(memoryview(data), topic, attempt, dead_letter, fetch or _give_up)
        envelope = decode_envelope(data)
    except (msgspec.DecodeError, ProtocolError) as e:
        raise ProtocolError(summary=f"a message on topic {topic!r} cannot be read: {e}") from e
    return Message.from_envelope(envelope, topic, attempt, dead_letter)


def _decode_parts(
    body: memoryview,
    topic: str | None,
    attempt: int,
    dead_letter: DeadLetterNote | None,
    fetch: Fetch,
) -> Message:
    places, start, end = unpack_places(body)
    message = Message.from_envelope(decode_envelope(body[start:end]), topic, attempt, dead_letter)
    message.parts = tuple(
        fetch(place) if place.slot else body[place.offset : place.offset + place.size].toreadonly()
        for place in places
    )
    return message


def _give_up(place: Place) -> Part:
    return LostPart(f"its {place.size:,} bytes lie in memory that this process does not share")
