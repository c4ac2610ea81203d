"""Message to bytes and back; the only place that knows the format of a stored envelope."""

from __future__ import annotations

import msgspec

from rustic_ai.core.errors import ProtocolError
from rustic_ai.core.messaging.core.dead_letter import DeadLetterNote
from rustic_ai.core.messaging.core.message import Envelope, Message

encode_envelope = msgspec.msgpack.Encoder().encode
"""Returns an envelope as MessagePack; the payload inside is not touched."""
decode_envelope = msgspec.msgpack.Decoder(Envelope).decode
"""Reads an envelope; raises `msgspec.DecodeError` where it is none."""


def encode_message(message: Message) -> bytes:
    """Return the envelope of a message as MessagePack."""
    return encode_envelope(message.envelope)


def decode_message(
    data: bytes | bytearray | memoryview,
    topic: str | None,
    attempt: int = 1,
    dead_letter: DeadLetterNote | None = None,
) -> Message:
    """Read an envelope that arrived on `topic`; the payload stays bytes.

    Raises:
        ProtocolError: `data` is not an envelope.
    """
    try:
        envelope = decode_envelope(data)
    except msgspec.DecodeError as e:
        raise ProtocolError(summary=f"a message on topic {topic!r} cannot be read: {e}") from e
    return Message.from_envelope(envelope, topic, attempt, dead_letter)
