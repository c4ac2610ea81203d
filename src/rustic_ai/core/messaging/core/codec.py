"""Message to bytes and back; the only place that knows the format of a stored envelope."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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
from rustic_ai.core.messaging.core.message import Envelope, Message

encode_field = msgspec.msgpack.Encoder().encode
"""Returns a field of an envelope as MessagePack."""
_encode_envelope = msgspec.msgpack.Encoder().encode
decode_envelope = msgspec.msgpack.Decoder(Envelope).decode
"""Reads an envelope; raises `msgspec.DecodeError` where it is none."""

_new = object.__new__

Fetch = Callable[[Place], Part]
"""Returns a part that lies in shared memory."""


class EncodedMessage(Message):
    """A plain message whose envelope is bytes, and an object only when somebody asks for it.

    It has no parts and is no dead letter, and lives as long as its topic keeps it.
    """

    __slots__ = ("_envelope", "encoded", "id", "topics")

    _envelope: Envelope | None
    encoded: bytes
    """Its body."""
    id: int
    topics: tuple[str, ...]

    @classmethod
    def of(cls, encoded: bytes, message_id: int, topics: tuple[str, ...]) -> EncodedMessage:
        """Wrap an envelope, of which the caller knows what stands in it."""
        message = _new(cls)
        message.encoded = encoded
        message._envelope = None  # noqa: SLF001 - its own, like what follows
        message.id = message_id
        message.topics = topics
        message._payload = None  # noqa: SLF001
        message.parts = ()
        message.topic_published_to = None
        message.attempt = 1
        message.dead_letter = None
        return message

    @property
    def envelope(self) -> Envelope:  # type: ignore[override] # no `__getattr__`: it slows the others
        """The envelope, made on first use."""
        if self._envelope is None:
            self._envelope = decode_envelope(self.encoded)
        return self._envelope

    def __reduce__(self) -> tuple[Any, ...]:
        """Be a message as any other in a copy or a pickle."""
        about = self.topic_published_to, self.attempt, self.dead_letter
        return Message.from_envelope, (self.envelope, *about)


def encode_envelope(message: Message) -> bytes:
    """Return the envelope of a message as MessagePack; the payload inside is not touched."""
    if type(message) is EncodedMessage:
        return message.encoded
    return _encode_envelope(message.envelope)


def encode_message(message: Message) -> bytes:
    """Return a message as a body: its envelope as MessagePack, and its parts, where it has some."""
    envelope = encode_envelope(message)
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
