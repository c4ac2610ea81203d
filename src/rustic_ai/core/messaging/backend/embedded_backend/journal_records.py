"""What stands in a segment of the journal, as bytes. Without any I/O.

A segment is a 32-byte header and *batches*, each ended by a COMMIT record::

    8s magic   u32 version   u32 segment   u64 epoch   4x   u32 crc32 of what is before it

This header is the same in every version of the format.

Every record is a 24-byte little-endian header and a body::

    u32 length  of the body
    u8  kind
    3x
    u64 value   position, start, client, number of crashes, or how much of the file was on disk
    u32 topic   number of the topic, or the length of the batch (COMMIT)
    u32 n       how many messages, or crc32 of all before it in the batch (COMMIT)

The checksum of a batch begins with epoch, segment and offset, so that a batch is valid in its own
place only: not where a disk brings back an old block, nor inside a message.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from zlib import crc32

MAGIC = b"RUSTICJL"
VERSION = 1
SEGMENT_HEADER = struct.Struct("<8sIIQ4x")
SEGMENT_HEADER_SIZE = SEGMENT_HEADER.size + 4
RECORD = struct.Struct("<IB3xQII")
RECORD_SIZE = RECORD.size
_PLACE = struct.Struct("<QIQ")
_U16 = struct.Struct("<H")
_U64 = struct.Struct("<Q")
_U32 = struct.Struct("<I")
_COMMIT = struct.Struct("<IB3sQI")

RUN = 1
TOPIC = 2
CURSOR = 3
FORGET = 4
PRODUCER = 5
START = 6
SNAPSHOT = 7
COMMIT = 8
CRASHES = 9
SWEPT = 10
COMMIT_MARK = struct.pack("<IB3s", 0, COMMIT, b"END")

Run = tuple[int, int, int, bytes]
"""Number of the topic, position of the first message, how many, and their frames."""


@dataclass(slots=True)
class State:
    """What a journal knows beside the messages."""

    topics: dict[int, tuple[str, str]] = field(default_factory=dict)
    cursors: dict[tuple[int, str], int] = field(default_factory=dict)
    crashes: dict[tuple[int, str], int] = field(default_factory=dict)
    """How often the message at a cursor was in hand when its subscriber's process was lost."""
    producers: dict[int, int] = field(default_factory=dict)
    starts: dict[int, int] = field(default_factory=dict)
    swept: dict[int, int] = field(default_factory=dict)
    """Position before which slots that messages of a topic needed may be in use again."""

    def apply(self, kind: int, value: int, topic: int, body: bytes) -> None:
        """Take one record."""
        if kind == TOPIC:
            (size,) = _U16.unpack_from(body)
            self.topics[topic] = (body[2 : 2 + size].decode(), body[2 + size :].decode())
        elif kind == CURSOR:
            self.cursors[topic, body.decode()] = value
            self.crashes.pop((topic, body.decode()), None)
        elif kind == FORGET:
            self.cursors.pop((topic, body.decode()), None)
            self.crashes.pop((topic, body.decode()), None)
        elif kind == CRASHES:
            self.crashes[topic, body.decode()] = value
        elif kind == START:
            self.starts[topic] = value
        elif kind == SWEPT:
            self.swept[topic] = value
        elif kind == SNAPSHOT:
            self.topics.clear()
            self.starts.clear()
            self.producers.clear()
            self.cursors.clear()
            self.crashes.clear()
            self.swept.clear()
        elif accepted := _U64.unpack(body)[0]:
            self.producers[value] = accepted
        else:
            self.producers.pop(value, None)


@dataclass(slots=True)
class Changes:
    """What a batch changes; of the same thing the last word only."""

    topics: dict[int, tuple[str, str]] = field(default_factory=dict)
    cursors: dict[tuple[int, str], int | None] = field(default_factory=dict)
    crashes: dict[tuple[int, str], int] = field(default_factory=dict)
    producers: dict[int, int] = field(default_factory=dict)
    starts: dict[int, int] = field(default_factory=dict)
    swept: dict[int, int] = field(default_factory=dict)

    @classmethod
    def all_of(cls, state: State) -> Changes:
        """Return what leads from nothing to `state`."""
        return cls(
            dict(state.topics),
            dict(state.cursors),
            dict(state.crashes),
            dict(state.producers),
            dict(state.starts),
            dict(state.swept),
        )

    def __bool__(self) -> bool:
        return bool(
            self.cursors
            or self.producers
            or self.starts
            or self.topics
            or self.crashes
            or self.swept
        )

    def cursor(self, topic: int, subscriber: str, position: int | None) -> None:
        """Note how far a subscriber has read; None: forget it. What it read crashed nobody."""
        self.cursors[topic, subscriber] = position
        if self.crashes:
            self.crashes.pop((topic, subscriber), None)

    def records(self) -> Iterator[bytes]:
        """Yield them as records."""
        for topic, (namespace, name) in self.topics.items():
            first = namespace.encode()
            yield _record(TOPIC, 0, topic, _U16.pack(len(first)) + first + name.encode())
        for (topic, subscriber), position in self.cursors.items():
            kind = FORGET if position is None else CURSOR
            yield _record(kind, position or 0, topic, subscriber.encode())
        for (topic, subscriber), count in self.crashes.items():
            yield _record(CRASHES, count, topic, subscriber.encode())
        for client, accepted in self.producers.items():
            yield _record(PRODUCER, client, 0, _U64.pack(accepted))
        for topic, start in self.starts.items():
            yield _record(START, start, topic, b"")
        for topic, position in self.swept.items():
            yield _record(SWEPT, position, topic, b"")

    def apply_to(self, state: State) -> None:
        """Make them in `state`."""
        state.topics |= self.topics
        state.starts |= self.starts
        state.swept |= self.swept
        for place, position in self.cursors.items():
            state.crashes.pop(place, None)
            if position is None:
                state.cursors.pop(place, None)
            else:
                state.cursors[place] = position
        state.crashes |= self.crashes
        for client, accepted in self.producers.items():
            if accepted:
                state.producers[client] = accepted
            else:
                state.producers.pop(client, None)


def _record(kind: int, value: int, topic: int, body: bytes) -> bytes:
    return RECORD.pack(len(body), kind, value, topic, 0) + body


def run_header(topic: int, base: int, count: int, size: int) -> bytes:
    """Return what stands before the messages of a run."""
    return RECORD.pack(size, RUN, base, topic, count)


def snapshot(state: State) -> list[bytes]:
    """Return the records a segment begins with: all that is known, whatever was said before."""
    return [_record(SNAPSHOT, 0, 0, b""), *Changes.all_of(state).records()]


def segment_header(epoch: int, segment: int) -> bytes:
    """Return the beginning of a segment."""
    header = SEGMENT_HEADER.pack(MAGIC, VERSION, segment, epoch)
    return header + _U32.pack(crc32(header))


def seal(parts: list[bytes], epoch: int, segment: int, offset: int, synced: int) -> list[bytes]:
    """Return a batch that stands at `offset`, with its COMMIT; two buffers for one write."""
    size = sum(map(len, parts))
    batch = b"".join([*parts, _COMMIT.pack(0, COMMIT, b"END", synced, size)])
    return [batch, _U32.pack(crc32(batch, crc32(_PLACE.pack(epoch, segment, offset))))]


def is_sealed(data: memoryview, epoch: int, segment: int, offset: int, mark: int) -> bool:
    """Say whether a valid batch stands at `offset`, its COMMIT at `mark`."""
    _, _, _, size, checksum = RECORD.unpack_from(data, mark)
    if offset + size != mark:
        return False
    seed = crc32(_PLACE.pack(epoch, segment, offset))
    return crc32(data[offset : mark + RECORD_SIZE - 4], seed) == int(checksum)


def is_promised(data: bytes, epoch: int, segment: int, offset: int) -> bool:
    """Say whether a later batch, itself valid, says that what is at `offset` was on disk."""
    view = memoryview(data)
    mark = data.find(COMMIT_MARK, offset)
    while 0 <= mark <= len(data) - RECORD_SIZE:
        _, _, synced, size, _ = RECORD.unpack_from(data, mark)
        start = mark - size
        if offset < synced <= start and is_sealed(view, epoch, segment, start, mark):
            return True
        mark = data.find(COMMIT_MARK, mark + 1)
    return False
