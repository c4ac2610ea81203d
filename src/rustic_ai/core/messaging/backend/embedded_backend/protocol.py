"""The wire: frames with a fixed header, without any I/O. Shared by server and client.

Every frame is a 24-byte little-endian header and a body::

    u32 length  of the whole frame
    u8  op      what it is
    u8  flags
    u16 aux     number of a subscription, kind of a query, code of an error
    u32 topic   number that the server gave to a topic's name
    u32 n       number of a request, of messages, of a window; time to live in ms (PUBLISH)
    u64 id      id of a message, or a position in a topic

A PUBLISH frame is also what is stored and what subscribers get, byte for byte.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

from rustic_ai.core.errors import ProtocolError

HEADER = struct.Struct("<IBBHIIQ")
HEADER_SIZE = HEADER.size
MAGIC = int.from_bytes(b"RUSTICMP", "little")
VERSION = 1
MAX_FRAME = 16 << 20
"""Largest frame that a server takes unless told otherwise, in bytes."""
MAX_NAME = 1024
"""Largest name of a topic, namespace or subscriber, in bytes."""
FROM_NOW = (1 << 64) - 1
_MAX_N = (1 << 32) - 1


class Op(IntEnum):
    """What a frame is. C: sent by clients, S: by the server."""

    HELLO = 1  # C: id=MAGIC n=version.  S: n=largest frame
    TOPIC = 2  # C: n=request, body=names.  S: n=request topic=number
    PUBLISH = 3  # C: topic id n=ttl, body=envelope.  S: inside DELIVER and ROWS
    PUBLISHED = 4  # S: id=how many of this connection's messages are stored so far
    SUBSCRIBE = 5  # C: topic aux=subscription n=window id=position, body=subscriber.  S: the same
    UNSUBSCRIBE = 6  # C: aux=subscription.  S: the same, nothing is delivered after it
    DELIVER = 7  # S: aux=subscription id=position of the first n=how many; PUBLISH frames follow
    ACK = 8  # C: aux=subscription id=position of the next message that is wanted
    QUERY = 9  # C: n=request aux=kind topic id, body
    ROWS = 10  # S: n=request aux=1 if there is more id=where to go on, body=PUBLISH frames
    ERROR = 11  # S: aux=code, body=text; the connection ends
    GOODBYE = 12  # C: the connection ends


class Query(IntEnum):
    """What a QUERY asks for."""

    FROM_POSITION = 0  # id=position
    SINCE_ID = 1  # id=message id
    NEXT_AFTER_ID = 2  # id=message id; at most one row
    BY_IDS = 3  # id=index of the first id to look at, body=namespace and ids
    SUBSCRIBERS = 4  # body=namespace; the body of the answer is JSON


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


def pack(
    op: Op,
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


def pack_publish(topic: int, message_id: int, ttl: float | None, envelope: bytes) -> bytes:
    """Return the frame of a message; a time to live beyond 49 days counts as none."""
    ms = 0 if ttl is None else max(1, round(ttl * 1000))
    return pack(Op.PUBLISH, envelope, topic=topic, n=ms if ms <= _MAX_N else 0, id=message_id)


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


class FrameReader:
    """Cuts a stream of bytes into frames; keeps what is not complete yet.

    Args:
        max_frame: longest frame that is taken; checked before it is waited for.
    """

    def __init__(self, max_frame: int = MAX_FRAME) -> None:
        self.max_frame = max_frame
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Take bytes; yield the frames that are complete.

        Raises:
            ProtocolError: a length is impossible; the stream cannot be used any more.
        """
        buffer = self._buffer
        buffer += data
        start, end = 0, len(buffer)
        try:
            while end - start >= HEADER_SIZE:
                length, op, flags, aux, topic, n, id_ = HEADER.unpack_from(buffer, start)
                if not HEADER_SIZE <= length <= self.max_frame:
                    raise ProtocolError(
                        summary=f"a frame of {length:,} bytes (allowed: {HEADER_SIZE} to "
                        f"{self.max_frame:,})"
                    )
                if end - start < length:
                    break
                raw = bytes(buffer[start : start + length])
                frame = Frame(op, flags, aux, topic, n, id_, raw)
                start += length
                yield frame
        finally:
            del buffer[:start]


def unpack_frames(body: bytes) -> list[Frame]:
    """Take a body apart that consists of frames, such as that of ROWS."""
    return list(FrameReader(len(body) + 1).feed(body))
