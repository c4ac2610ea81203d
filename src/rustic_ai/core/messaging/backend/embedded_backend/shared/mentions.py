"""Which slots messages mention."""

from __future__ import annotations

from collections.abc import Iterator

from rustic_ai.core.errors import ProtocolError
from rustic_ai.core.messaging.backend.embedded_backend.protocol import (
    ACK,
    DEAD,
    HEADER,
    HEADER_SIZE,
    SHARED,
    STEP,
    messages_in,
)
from rustic_ai.core.messaging.core.attachment import Place, unpack_places
from rustic_ai.core.messaging.core.dead_letter import note_size


def mentioned_in(run: bytes, offset: int = 0) -> Iterator[tuple[int, list[Place]]]:
    """Yield for each message of a run that mentions some: its number there, and places in slots.

    Raises:
        ProtocolError: it cannot be read.
    """
    for index, stored in enumerate(messages_in(run, offset)):
        if not stored.flags & SHARED:
            continue
        start = stored.start
        if stored.flags & DEAD:
            start += note_size(run, start)
        places, _, end = unpack_places(run, start)
        if end > stored.end:
            raise ProtocolError(summary="an envelope that reaches beyond its frame")
        yield index, [place for place in places if place.slot]


def mentioned_by(unit: bytes) -> list[Place]:
    """Return the places in slots of a unit of ours."""
    offset = 0
    if HEADER.unpack_from(unit)[1] == STEP:
        offset = HEADER_SIZE
        while offset < len(unit) and HEADER.unpack_from(unit, offset)[1] == ACK:
            offset += HEADER_SIZE
    return [place for _, places in mentioned_in(unit, offset) for place in places]
