"""Large parts of a payload, which travel beside the envelope: how both stand in one body.

A body that has some begins with `MARK`, which no MessagePack object does::

    u8 MARK, u8 version, u16 count, u32 size of the envelope
    count times: u64 slot, u32 use, u32 0, u64 offset, u64 size
    the envelope
    what stands in the body itself, each part at a multiple of 16 bytes from its beginning

A part with slot 0 stands in the body, `offset` bytes from its beginning. Any other lies in memory
that both sides share; only whoever made the slot can say where.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from rustic_ai.core.errors import ProtocolError

MARK = 0xC1
_VERSION = 1
_HEAD = struct.Struct("<BBHI")
_PLACE = struct.Struct("<QIIQQ")
_ALIGNMENT = 16
MAX_PARTS = (1 << 16) - 1


class Source(Protocol):
    """What a part is written from, where it is not a contiguous piece of memory already."""

    @property
    def nbytes(self) -> int:
        """Size in bytes."""

    def write_to(self, target: memoryview) -> None:
        """Fill `target`, which is writable, contiguous and has `nbytes` bytes."""


@dataclass(frozen=True, slots=True)
class InBody:
    """A part that is to stand in the body, and so be stored with the message, however large."""

    part: memoryview | Source

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return self.part.nbytes

    def write_to(self, target: memoryview) -> None:
        """Fill `target`."""
        write_part(self.part, target)


@dataclass(frozen=True, slots=True)
class LostPart:
    """Stands for a part that cannot be read any more."""

    reason: str


Part = memoryview | Source | LostPart
"""A memoryview is of bytes (format 'B'), one-dimensional and contiguous."""


class Place(NamedTuple):
    """Where a part lies: in the `use`-th use of a slot, or, with slot 0, in the body itself."""

    slot: int
    use: int
    offset: int
    size: int


def write_part(part: Part, target: memoryview) -> None:
    """Write a part.

    Raises:
        ValueError: it is lost.
    """
    if isinstance(part, memoryview):
        target[:] = part
    elif isinstance(part, LostPart):
        raise ValueError(part.reason)  # noqa: TRY004 - of the right type, but empty
    else:
        part.write_to(target)


def size_of(part: Part) -> int:
    """Return the size of a part in bytes."""
    return 0 if isinstance(part, LostPart) else part.nbytes


def stored(parts: Sequence[Part]) -> tuple[Part, ...]:
    """Return parts that are stored with their message."""
    return tuple(p if isinstance(p, InBody | LostPart) else InBody(p) for p in parts)


def pack_inline(envelope: bytes, parts: Sequence[Part]) -> bytes:
    """Return a body with all parts in it."""
    return pack_parts(envelope, [(None, part) for part in parts])


def pack_parts(envelope: bytes, parts: Sequence[tuple[Place | None, Part]]) -> bytes:
    """Return a body; a part without a place is copied into it."""
    return b"".join(pieces_of(envelope, parts))


def pieces_of(
    envelope: bytes, parts: Sequence[tuple[Place | None, Part]]
) -> list[bytes | bytearray | memoryview]:
    """Return the pieces of a body, for whoever joins them with more: large parts are copied once.

    A lost part becomes an empty one.
    """
    end = _HEAD.size + len(parts) * _PLACE.size + len(envelope)
    heads = [_HEAD.pack(MARK, _VERSION, len(parts), len(envelope))]
    pieces: list[bytes | bytearray | memoryview] = []
    for shared, part in parts:
        place = shared
        if place is None:
            start = -(-end // _ALIGNMENT) * _ALIGNMENT
            place = Place(0, 0, start, size_of(part))
            pieces += (bytes(start - end), _memory_of(part))
            end = start + place.size
        heads.append(_PLACE.pack(place.slot, place.use, 0, place.offset, place.size))
    return [*heads, envelope, *pieces]


def _memory_of(part: Part) -> bytearray | memoryview:
    """Return the bytes of a part: where they are already, if they are anywhere."""
    if isinstance(part, InBody):
        part = part.part
    if isinstance(part, memoryview):
        return part
    written = bytearray(size_of(part))
    if written:
        write_part(part, memoryview(written))
    return written


def unpack_places(body: bytes | memoryview, start: int = 0) -> tuple[list[Place], int, int]:
    """Read where the parts of a body that begins at `start` lie.

    Returns:
        The places, and from where to where the envelope stands in `body`.

    Raises:
        ProtocolError: it is no such body.
    """
    try:
        mark, version, count, size = _HEAD.unpack_from(body, start)
        if mark != MARK or version != _VERSION:
            raise ProtocolError(summary=f"a body of unknown kind {mark:#x}, version {version}")
        places = []
        offset = start + _HEAD.size
        for _ in range(count):
            slot, use, _, at, length = _PLACE.unpack_from(body, offset)
            if not slot and at + length > len(body) - start:
                raise ProtocolError(summary="a part that reaches beyond its body")
            places.append(Place(slot, use, at, length))
            offset += _PLACE.size
    except struct.error as e:
        raise ProtocolError(summary=f"a body that is cut off: {e}") from e
    if offset + size > len(body):
        raise ProtocolError(summary="an envelope that is cut off")
    return places, offset, offset + size
