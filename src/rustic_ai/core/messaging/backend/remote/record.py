"""What a foreign store keeps of a message: one byte of flags, and the body."""

from __future__ import annotations

import logging
import time
from typing import NamedTuple

from rustic_ai.core.errors import ProtocolError
from rustic_ai.core.messaging.core.codec import decode_message, encode_message
from rustic_ai.core.messaging.core.dead_letter import (
    DEAD_LETTER_TOPIC,
    DeadLetterNote,
    pack_dead_letter,
    unpack_dead_letter,
)
from rustic_ai.core.messaging.core.message import Message

logger = logging.getLogger(__name__)

_PLAIN, _DEAD = b"\0", b"\1"
"""What a record begins with; behind the second, a `DeadLetterNote` stands before the envelope."""


class Output(NamedTuple):
    """One message on its way to the store."""

    namespace: str
    topic: str
    message_id: int
    ttl_ms: int
    """Milliseconds from now after which nobody wants it any more; 0: none."""
    record: bytes


def output_of(namespace: str, topic: str, message: Message) -> Output:
    """Return a message as the store is to keep it."""
    envelope = message.envelope
    body = encode_message(message)
    if message.dead_letter is None:
        record = _PLAIN + body
    else:
        record = _DEAD + pack_dead_letter(message.dead_letter, body)
    ttl_ms = 0 if envelope.ttl is None else max(1, round(envelope.ttl * 1000))
    return Output(namespace, topic, envelope.id, ttl_ms, record)


def dead_output_of(
    topic: str, record: bytes, subscriber: str, attempts: int, reason: str
) -> Output | None:
    """Return what goes to the dead letters for a record that is given up; None: it is one already.

    Args:
        topic: where it stood; its namespace is what stands before the first colon.
        record: what the store has of it.
        subscriber: who could not handle it.
        attempts: how often it was tried.
        reason: why it is given up.
    """
    if record[:1] == _DEAD:
        return None
    namespace = topic.partition(":")[0]
    note = DeadLetterNote(topic, subscriber, attempts, reason, time.time_ns() // 1_000_000)
    message_id = decode_message(record[1:], topic).id
    dead = _DEAD + pack_dead_letter(note, record[1:])
    return Output(namespace, f"{namespace}:{DEAD_LETTER_TOPIC}", message_id, 0, dead)


def message_of(record: bytes, topic: str, attempt: int = 1) -> Message | None:
    """Return the message of a record; None where it cannot be read, which is logged."""
    body = memoryview(record)[1:]
    try:
        if record[:1] == _DEAD:
            note, envelope = unpack_dead_letter(body)
            return decode_message(envelope, note.topic, note.attempts + attempt, note)
        return decode_message(body, topic, attempt)
    except ProtocolError:
        logger.exception("a message on topic %r cannot be read, skipped", topic)
        return None
