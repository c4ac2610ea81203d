"""What a client has sent and the server has not confirmed yet, as plain data."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from rustic_ai.core.messaging.backend.embedded_backend.protocol import (
    FLAGS_AT,
    HEADER,
    HEADER_SIZE,
    SHARED,
    Op,
    unpack_header,
)

MAX_UNITS: Final = 16_384
MAX_BYTES: Final = 8 << 20
_TOPIC_AT: Final = 8
_TOPICAL: Final = (Op.PUBLISH, Op.TOPIC, Op.QUERY, Op.DECLARE)


class SendWindow:
    """Units by number, from the first on; kept until they are confirmed.

    One thread may `add` while another one does the rest: each number has one writer.
    """

    def __init__(self) -> None:
        self._units: deque[bytes] = deque()
        self._bytes_in = self._bytes_out = 0
        self._ahead = 0
        """By how much our numbers are ahead of the server's, which may have forgotten us."""
        self.leaves: Callable[[bytes], None] | None = None
        """Is told of units with parts in shared memory before they are sent, if there may be."""
        self.sent = 0
        self.accepted = 0
        self.refusals: dict[int, str] = {}

    def is_full(self) -> bool:
        """Whether a publisher has to wait."""
        return self._bytes_in - self._bytes_out >= MAX_BYTES or len(self._units) >= MAX_UNITS

    def add(self, frame: bytes) -> int:
        """Keep a unit; returns its number."""
        self._bytes_in += len(frame)
        self.sent += 1
        if self.leaves is not None and frame[FLAGS_AT] & SHARED:
            self.leaves(frame)
        self._units.append(frame)
        return self.sent

    def accept(self, count: int) -> None:
        """Let go of what the server has stored: its first `count` units."""
        count += self._ahead
        while self.accepted < count and self._units:
            self._bytes_out += len(self._units.popleft())
            self.accepted += 1

    def refuse(self, number: int, text: str) -> None:
        """Note that the server will not store a unit."""
        self.refusals[number + self._ahead] = text

    def resume(self, count: int) -> Iterator[bytes]:
        """Go on with a server that has stored `count` units; yields what it has not."""
        if count + self._ahead < self.accepted:
            self._ahead = self.accepted - count
        self.accept(count)
        yield from self._units

    def renumber(self, topics: Mapping[int, int], *, keep_acks: bool) -> None:
        """Put other numbers of topics into what was not confirmed.

        Args:
            topics: old number -> new number.
            keep_acks: whether positions are still those of the server.
        """
        self._units = deque(_renumbered(unit, topics, keep_acks) for unit in self._units)
        self._bytes_in = self._bytes_out + sum(map(len, self._units))


def with_topic(frame: bytes, topics: Mapping[int, int]) -> bytes:
    """Return a frame with the new number of its topic."""
    _, op, _, _, topic, _, _ = unpack_header(frame, 0)
    if op not in _TOPICAL or topics.get(topic, topic) == topic:
        return frame
    number = topics[topic].to_bytes(4, "little")
    return frame[:_TOPIC_AT] + number + frame[_TOPIC_AT + 4 :]


def _renumbered(unit: bytes, topics: Mapping[int, int], keep_acks: bool) -> bytes:  # noqa: FBT001
    _, op, flags, aux, topic, n, id_ = unpack_header(unit, 0)
    if op != Op.STEP:
        return with_topic(unit, topics)
    parts, offset = [], HEADER_SIZE
    while offset < len(unit):
        length, inner, *_ = unpack_header(unit, offset)
        if inner != Op.ACK or keep_acks:
            parts.append(with_topic(unit[offset : offset + length], topics))
        offset += length
    body = b"".join(parts)
    return HEADER.pack(HEADER_SIZE + len(body), op, flags, aux, topic, n, id_) + body
