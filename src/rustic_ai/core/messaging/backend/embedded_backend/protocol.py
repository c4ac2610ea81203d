"""The wire: frames with a fixed header, without any I/O. Shared by server and client.

Every frame is a 24-byte little-endian header and a body::

    u32 length  of the whole frame
    u8  op      what it is
    u8  flags
    u16 aux     number of a subscription, kind of a query, attempts that are allowed
    u32 topic   number that the server gave to a topic's name
    u32 n       number of a request, of messages, of a window; time to live in ms (PUBLISH)
    u64 id      id of a message or of a client, a position in a topic, a count

A PUBLISH frame is also what is stored, what a journal holds, and what subscribers get, byte for
byte. A *run* is PUBLISH frames of one topic, one behind the other. A *unit* is what a client counts
of what it sends: a PUBLISH frame of its own, or a STEP, which is applied whole or not at all.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from enum import IntEnum
from typing import Final, NamedTuple

from rustic_ai.core.errors import ProtocolError

HEADER: Final = struct.Struct("<IBBHIIQ")
HEADER_SIZE: Final = HEADER.size
unpack_message: Final[Callable[[bytes, int], tuple[int, int, int, int]]] = struct.Struct(
    "<IxB6xIQ"
).unpack_from
"""Returns what the reader of a message needs of its header: length, flags, ms to live, id."""
FLAGS_AT: Final = 5
"""Where the flags stand in a frame."""
WELCOME: Final = struct.Struct("<QQQ")
"""Body of a server's HELLO: life of what it has stored, largest message with parts in its body,
life of its process."""
MAGIC: Final = int.from_bytes(b"RUSTICMP", "little")
VERSION: Final = 4
MAX_FRAME: Final = (16 << 20) + (64 << 10)
"""Largest message that a server takes unless told otherwise, in bytes: 16 MiB and its envelope."""
MAX_PAYLOAD: Final = 1 << 30
"""Largest message with parts in its body that a server takes unless told otherwise, in bytes."""
MAX_STEP: Final = 4
"""A STEP may be this many times as large as a message."""
MAX_NAME: Final = 1024
"""Largest name of a topic, namespace or subscriber, in bytes."""
MAX_GREETING: Final = 256
"""Largest frame of a client that has not proved yet who it is, in bytes."""
FROM_START: Final = 0
FROM_NOW: Final = (1 << 64) - 1
_MAX_N: Final = (1 << 32) - 1
_pack: Final = HEADER.pack
unpack_header: Final[Callable[[bytes, int], tuple[int, int, int, int, int, int, int]]] = (
    HEADER.unpack_from
)
"""Returns the fields of the header that stands at an offset."""

ACK_NOW: Final = 1
"""Flag of PUBLISH and STEP: somebody waits for the server's word."""
DEAD: Final = 2
"""Flag of PUBLISH: the envelope stands behind a `DeadLetterNote`."""
SHARED: Final = 4
"""Flag of PUBLISH: parts of it lie in slots."""
LARGE: Final = 8
"""Flag of PUBLISH and STEP: parts stand in the body, which may be as large as `MAX_PAYLOAD`."""
HANDLED: Final = 128
"""Flag of DELIVER: all subscribers of before have handled some of these; slots that they needed may
be in use again."""
SEGMENT_SHIFT: Final = 16
"""The number of a slot is that of its segment, and in so many lowest bits its index there."""
DURABLE: Final = 1
"""Flag of SUBSCRIBE: the place in the topic outlives the connection."""
RESUME: Final = 2
"""Flag of SUBSCRIBE: go on exactly here; the client has not died, only its connection."""
FORGET: Final = 1
"""Flag of UNSUBSCRIBE: the place in the topic is not needed any more."""


class Op(IntEnum):
    """What a frame is. C: sent by clients, S: by the server."""

    HELLO = 1  # C: id=MAGIC n=version, body=client, nonce.  S: n=largest message id=units, body
    TOPIC = 2  # C: n=request flags=RESUME, body=names.  S: n=request topic=number
    PUBLISH = 3  # C: topic id n=ttl, body=envelope.  S: inside DELIVER and ROWS
    PUBLISHED = 4  # S: id=how many units of this client are stored so far
    SUBSCRIBE = 5  # C: topic aux=subscription n=window id=position, body=subscriber, attempts
    UNSUBSCRIBE = 6  # C: aux=subscription.  S: the same, nothing is delivered after it
    DELIVER = 7  # S: aux=subscription flags=attempt, HANDLED id=position n=how many, body=run;
    #              n=0: a gap
    ACK = 8  # C: aux=subscription id=position of the next message that is wanted
    QUERY = 9  # C: n=request aux=kind topic id, body
    ROWS = 10  # S: n=request aux=1 if there is more id=where to go on, body=run
    ERROR = 11  # S: body=text; the connection ends
    GOODBYE = 12  # C: the connection ends, and its client with it
    CHALLENGE = 13  # S: body=nonce, proof
    PROOF = 14  # C: body=proof
    STEP = 15  # C: body=ACK and PUBLISH frames
    REFUSED = 16  # S: id=unit that was not stored, body=text
    DECLARE = 17  # C: n=request topic id=position, body=subscriber.  S: n=request
    DISOWN = 18  # C: n=request, body=namespace, subscriber: all its places go.  S: n=request
    # Of parts in shared memory: id is a slot, or where it says so a segment.
    CHANNEL = 19  # C: first frame of a second connection, id=client.  S: id=life of the process
    OFFER = 20  # C, on the channel, with a descriptor: id=segment.  S: n=1 if it has it now
    WANT = 21  # C, on the channel: id=segment.  S: the same, with a descriptor, n=1; or n=0
    HOLD = 22  # C: it looks at what lies there for longer than until its acknowledgement; or
    #            n=request, body=use: may it, still?  S: n=request, aux=1 if so
    UNHOLD = 23  # C: no more; id=0, body=slots: it looks at these alone
    RELEASED = 24  # S: nobody needs use n of it.  C: is that so?
    FORGET = 25  # C: id=segment of its own is gone.  S: id=segment is gone
    RETIRE = 26  # S: id=segment is idle for long; its owner should give it back to the system
    # Of a ring of bytes in shared memory, through which a client sends while it is looked at.
    RING = 27  # C: first frame of another connection, id=client; then alone, with a descriptor.
    #            S: id=life of the process; then n=1 if it has it now
    LOOK = 28  # C: what stands in the ring before position id comes before what follows here


PUBLISH: Final = int(Op.PUBLISH)
DELIVER: Final = int(Op.DELIVER)
ACK: Final = int(Op.ACK)
STEP: Final = int(Op.STEP)
"""Plain numbers, for where every nanosecond is spent a million times."""


class Query(IntEnum):
    """What a QUERY asks for."""

    FROM_POSITION = 0  # id=position
    SINCE_ID = 1  # id=message id
    NEXT_AFTER_ID = 2  # id=message id; at most one row
    BY_IDS = 3  # body=namespace and ids
    SUBSCRIBERS = 4  # body=namespace; the body of the answer is JSON
    STATISTICS = 5  # the body of the answer is JSON


class Frame(NamedTuple):
    """One frame, taken apart; `raw` is all of it."""

    op: int
    flags: int
    aux: int
    topic: int
    n: int
    id: int
    raw: bytes

    @property
    def body(self) -> bytes:
        """What follows the header."""
        return self.raw[HEADER_SIZE:]


Fields = tuple[int, int, int, int, int, int, bytes]
"""Those of a `Frame`."""


class Stored(NamedTuple):
    """One message of a run: its header's fields, and where its envelope stands."""

    flags: int
    topic: int
    ttl_ms: int
    id: int
    start: int
    end: int


def pack(
    op: int,
    body: bytes = b"",
    *,
    flags: int = 0,
    aux: int = 0,
    topic: int = 0,
    n: int = 0,
    id: int = 0,  # noqa: A002
) -> bytes:
    """Return a frame."""
    return HEADER.pack(HEADER_SIZE + len(body), op, flags, aux, topic, n, id) + body


def pack_ack(subscription: int, position: int) -> bytes:
    """Return the frame that acknowledges what is before a position."""
    return _pack(HEADER_SIZE, ACK, 0, subscription, 0, 0, position)


def pack_publish(
    topic: int, message_id: int, envelope: bytes, ttl_ms: int = 0, flags: int = 0
) -> bytes:
    """Return the frame of a message; `ttl_ms` as of `in_ms`."""
    size = HEADER_SIZE + len(envelope)
    return _pack(size, PUBLISH, flags, 0, topic, ttl_ms, message_id) + envelope


def pack_publish_of(
    topic: int,
    message_id: int,
    pieces: Sequence[bytes | bytearray | memoryview],
    ttl_ms: int = 0,
    flags: int = 0,
) -> bytes:
    """Return the frame of a message whose body is in pieces; as `pack_publish`."""
    size = HEADER_SIZE + sum(map(len, pieces))
    return b"".join((_pack(size, PUBLISH, flags, 0, topic, ttl_ms, message_id), *pieces))


def pack_step(acks: bytes, frames: Sequence[bytes], flags: int = 0) -> bytes:
    """Return the frame of acknowledgements and the messages that come with them."""
    body = acks + frames[0] if len(frames) == 1 else b"".join((acks, *frames))
    return _pack(HEADER_SIZE + len(body), STEP, flags, 0, 0, 0, 0) + body


def in_ms(ttl: float) -> int:
    """Return a time to live in seconds as milliseconds; beyond 49 days it is 0, none."""
    ms = max(1, round(ttl * 1000))
    return ms if ms <= _MAX_N else 0


def pack_names(*names: str) -> bytes:
    """Return a body of names.

    Raises:
        ValueError: one is too long.
    """
    parts = []
    for name in names:
        data = name.encode()
        if len(data) > MAX_NAME:
            raise ValueError(
                f"a name has at most {MAX_NAME} bytes: {name[:60]!r}... has {len(data)}"
            )
        parts.append(struct.pack("<H", len(data)) + data)
    return b"".join(parts)


def unpack_names(body: bytes, count: int) -> tuple[list[str], bytes]:
    """Take `count` names off a body; return them and the rest.

    Raises:
        ProtocolError: the body is not that.
    """
    names = []
    try:
        for _ in range(count):
            (length,) = struct.unpack_from("<H", body)
            if length > MAX_NAME or len(body) < 2 + length:
                raise ProtocolError(summary=f"a name of {length} bytes in a body of {len(body)}")
            names.append(body[2 : 2 + length].decode())
            body = body[2 + length :]
    except (struct.error, UnicodeDecodeError) as e:
        raise ProtocolError(summary=f"a name that cannot be read: {e}") from e
    return names, body


def messages_in(run: bytes, offset: int = 0) -> Iterator[Stored]:
    """Yield the messages of a run that begins at `offset`.

    Raises:
        ProtocolError: it is none.
    """
    end = len(run)
    while offset < end:
        if end - offset < HEADER_SIZE:
            raise ProtocolError(summary="a run of messages that is cut off")
        length, op, flags, _, topic, n, id_ = unpack_header(run, offset)
        if op != PUBLISH or not HEADER_SIZE <= length <= end - offset:
            raise ProtocolError(summary=f"a run of messages with a frame of kind {op}")
        yield Stored(flags, topic, n, id_, offset + HEADER_SIZE, offset + length)
        offset += length


def cut_run(run: bytes, first: int, last: int) -> bytes:
    """Return the messages `first` to `last`, not included, of a run."""
    offset = start = 0
    for number in range(last):
        if number == first:
            start = offset
        offset += unpack_header(run, offset)[0]
    return run[start:offset] if first < last else b""


class FrameReader:
    """Cuts a stream of bytes into frames; keeps what is not complete yet.

    Args:
        max_frame: longest frame that is taken; checked before it is waited for.
    """

    def __init__(self, max_frame: int) -> None:
        self.max_frame = max_frame
        self._buffer = bytearray()
        self._wanted = HEADER_SIZE

    def feed(self, data: bytes) -> list[Frame]:
        """Take bytes; return the frames that are complete; errors as of `cut`."""
        return [Frame(*fields) for fields in self.cut(data)]

    def cut(self, data: bytes) -> list[Fields]:
        """Take bytes; return the fields of the frames that are complete.

        Raises:
            ProtocolError: a length is impossible; the stream cannot be used any more.
        """
        if self._buffer:
            self._buffer += data
            if len(self._buffer) < self._wanted:
                return []
            data = bytes(self._buffer)
        start, end, wanted = 0, len(data), HEADER_SIZE
        found: list[Fields] = []
        while end - start >= HEADER_SIZE:
            length, op, flags, aux, topic, n, id_ = unpack_header(data, start)
            if not HEADER_SIZE <= length <= self.max_frame:
                raise ProtocolError(
                    summary=f"a frame of {length:,} bytes (allowed: {HEADER_SIZE} to "
                    f"{self.max_frame:,})"
                )
            after = start + length
            if after > end:
                wanted = length
                break
            found.append((op, flags, aux, topic, n, id_, data[start:after]))
            start = after
        if start < end or self._buffer:
            self._buffer, self._wanted = bytearray(data[start:]), wanted
        return found
