"""Messages that were given up: the note that comes with each, and where they go."""

from __future__ import annotations

import struct

import msgspec

from rustic_ai.core.errors import ProtocolError

DEAD_LETTER_TOPIC = "dead_letters"
"""Topic of a namespace that keeps them; like any other, it can be read and subscribed to."""
_LENGTH = struct.Struct("<H")
_MAX_REASON = 8000


def replay_topic(subscriber: str) -> str:
    """Return the topic on which a subscriber gets its dead letters once more."""
    return f"replay:{subscriber}"


class DeadLetterNote(msgspec.Struct, frozen=True, array_like=True):
    """Why a message was given up, and by whom."""

    topic: str
    """Where it came from."""
    subscriber: str
    """Who could not handle it."""
    attempts: int
    reason: str
    time_ms: int
    """When it was given up, since 1970-01-01 UTC."""


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(DeadLetterNote).decode


def pack_dead_letter(note: DeadLetterNote, envelope: bytes) -> bytes:
    """Put the note in front of the envelope."""
    if len(note.reason) > _MAX_REASON:
        note = msgspec.structs.replace(note, reason=note.reason[:_MAX_REASON] + "...")
    head = _encode(note)
    return _LENGTH.pack(len(head)) + head + envelope


def unpack_dead_letter(body: bytes | memoryview) -> tuple[DeadLetterNote, bytes | memoryview]:
    """Take both apart.

    Raises:
        ProtocolError: it is no dead letter.
    """
    try:
        (length,) = _LENGTH.unpack_from(body)
        end = _LENGTH.size + length
        return _decode(body[_LENGTH.size : end]), body[end:]
    except (struct.error, msgspec.DecodeError) as e:
        raise ProtocolError(summary=f"a dead letter that cannot be read: {e}") from e


def note_size(data: bytes | memoryview, start: int = 0) -> int:
    """Return how many bytes the note of a dead letter takes whose body begins at `start`.

    Raises:
        ProtocolError: it is no dead letter.
    """
    try:
        return _LENGTH.size + int(_LENGTH.unpack_from(data, start)[0])
    except struct.error as e:
        raise ProtocolError(summary=f"a dead letter that is cut off: {e}") from e
