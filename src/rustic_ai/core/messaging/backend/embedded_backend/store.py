"""Topics, their messages and who has read how far, as plain data."""

from __future__ import annotations

import time
from array import array
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from rustic_ai.core.messaging.backend.embedded_backend.config import Overflow
from rustic_ai.core.messaging.backend.embedded_backend.protocol import cut_run, messages_in
from rustic_ai.core.messaging.core.message_id import id_time_ms

if TYPE_CHECKING:
    from rustic_ai.core.messaging.backend.embedded_backend.session import Session

CHUNK: Final = 256 << 10
"""About how many bytes one answer to a query holds."""
_COMPACT_AFTER: Final = 1024
_SLACK: Final = 16


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much a server keeps, give or take a sixteenth. Sizes in bytes, age in seconds.

    What every subscriber has acknowledged is history: it goes, oldest first, when a topic or the
    server has too much of it. What a subscriber still wants stays, up to `pending`; then `overflow`
    decides: the publisher waits, gets an error, or the oldest goes, which its subscriber is told.
    """

    topic_bytes: int = 64 << 20
    topic_count: int = 1_000_000
    total_bytes: int = 256 << 20
    age: float = 24 * 3600.0
    pending: int = 128 << 20
    overflow: Overflow = "block"


@dataclass(slots=True, eq=False)
class Cursor:
    """How far one subscriber has read in one topic.

    `sent` is the position after what is on its way, `acked` after what was handled. While nobody
    is connected under its name, `session` is None.
    """

    topic: Topic
    subscriber: str
    durable: bool
    acked: int
    sent: int
    session: Session | None = None
    number: int = 0
    window: int = 0
    max_attempts: int = 0
    """Crashes after which the message in hand becomes a dead letter; 0: never."""
    crashes: int = 0
    """How often its process was lost with the message at `acked` in hand."""
    seen: int = 0
    """Position before which messages were sent to a process that was lost."""
    idle_since: float = 0.0
    begun: int = 0
    redelivered: int = 0
    skipped: int = 0
    gap: bool = False
    """Whether it was not told yet that what was before `sent` was dropped."""


@dataclass(slots=True, eq=False)
class Topic:
    """One topic's log: runs as they came. A position counts its messages from the first on."""

    number: int
    namespace: str
    name: str
    start: int = 0
    end: int = 0
    size: int = 0
    runs: list[bytes] = field(default_factory=list)
    bases: array[int] = field(default_factory=lambda: array("Q"))
    stored_at: array[float] = field(default_factory=lambda: array("d"))
    ids: array[int] = field(default_factory=lambda: array("Q"))
    cursors: list[Cursor] = field(default_factory=list)
    waiting: dict[Session, None] = field(default_factory=dict)
    """Sessions whose messages wait for room."""
    shared: deque[tuple[int, Any]] = field(default_factory=deque)
    """Positions of messages with parts in slots, and what the server's book knows of these."""
    swept: int = 0
    """Position before which slots that messages needed may be in use again."""
    dead: int = 0
    dropped: int = 0
    _first: int = 0
    _ids_start: int = 0
    _hint: int = 0

    def append(self, run: bytes, ids: Sequence[int], now: float) -> None:
        """Add a run."""
        self.runs.append(run)
        self.bases.append(self.end)
        self.stored_at.append(now)
        self.ids.extend(ids)
        self.end += len(ids)
        self.size += len(run)

    @property
    def floor(self) -> int:
        """Position before which nobody wants anything any more."""
        return min((cursor.acked for cursor in self.cursors), default=self.end)

    @property
    def oldest_at(self) -> float | None:
        """When the oldest run was stored; None where there is none."""
        return self.stored_at[self._first] if self._first < len(self.runs) else None

    def drop_oldest(self, floor: int) -> int:
        """Forget the oldest run if it lies before `floor`; returns how many bytes that gave."""
        index = self._first
        if index >= len(self.runs):
            return 0
        after = self.bases[index + 1] if index + 1 < len(self.bases) else self.end
        if after > floor:
            return 0
        freed = len(self.runs[index])
        self.runs[index] = b""
        self._first += 1
        self.start = after
        self.size -= freed
        if self._first >= _COMPACT_AFTER and self._first * 2 >= len(self.runs):
            self._compact()
        return freed

    def _compact(self) -> None:
        del self.runs[: self._first]
        del self.bases[: self._first]
        del self.stored_at[: self._first]
        del self.ids[: self.start - self._ids_start]
        self._first, self._ids_start = 0, self.start

    def begin_at(self, start: int) -> None:
        """Begin an empty topic at a position; for what a journal remembers."""
        self.start = self.end = self._ids_start = start

    def run_at(self, position: int) -> tuple[bytes, int]:
        """Return the messages of one run from a position on, and the position after them."""
        index = bisect_right(self.bases, position) - 1
        base = self.bases[index]
        after = self.bases[index + 1] if index + 1 < len(self.bases) else self.end
        run = self.runs[index]
        return (run if base == position else cut_run(run, position - base, after - base)), after

    def message_at(self, position: int) -> bytes:
        """Return the frame of one message."""
        run, after = self.run_at(position)
        return run if after == position + 1 else cut_run(run, 0, 1)

    def chunk(self, position: int, most: int) -> tuple[bytes, int]:
        """Return about `CHUNK` bytes of messages from a position on, at most `most` of them."""
        parts: list[bytes] = []
        size, last = 0, min(self.end, position + most)
        position = max(position, self.start)
        while position < last and size < CHUNK:
            run, after = self.run_at(position)
            if after > last:
                run, after = cut_run(run, 0, last - position), last
            parts.append(run)
            size += len(run)
            position = after
        return b"".join(parts), position

    def after(self, message_id: int) -> int:
        """Return the position after a message, or of the first later one where it is not here."""
        skipped = self.start - self._ids_start
        hint = self._hint
        if skipped <= hint < len(self.ids) and self.ids[hint] == message_id:
            return self._remember(hint + 1)  # who reads one by one goes on here
        try:
            return self._remember(self.ids.index(message_id, skipped) + 1)
        except ValueError:
            made = id_time_ms(message_id)
            later = (i for i in range(skipped, len(self.ids)) if id_time_ms(self.ids[i]) > made)
            return self._ids_start + next(later, len(self.ids))

    def _remember(self, index: int) -> int:
        self._hint = index
        return self._ids_start + index

    def find(self, wanted: set[int]) -> Iterator[tuple[int, int]]:
        """Yield id and position of the messages whose ids are wanted."""
        skipped = self.start - self._ids_start
        for index in range(skipped, len(self.ids)):
            if self.ids[index] in wanted:
                yield self.ids[index], self._ids_start + index

    def cursor_of(self, subscriber: str) -> Cursor | None:
        """Return a subscriber's durable place."""
        return next((c for c in self.cursors if c.durable and c.subscriber == subscriber), None)


class Store:
    """All topics of a server, within bounds."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        # A little more than allowed, so that not every message has to drop another.
        self._topic_bytes = bounds.topic_bytes + bounds.topic_bytes // _SLACK
        self._topic_count = bounds.topic_count + bounds.topic_count // _SLACK
        self._total_bytes = bounds.total_bytes + bounds.total_bytes // _SLACK
        self.topics: list[Topic] = []
        self.total = 0
        self._by_name: dict[str, Topic] = {}
        self.moved: dict[Topic, None] = {}
        """Topics that have lost their oldest; whoever keeps a journal takes them off."""

    def topic(self, number: int) -> Topic | None:
        """Return a topic by its number."""
        return self.topics[number] if number < len(self.topics) else None

    def open_topic(self, namespace: str, name: str) -> Topic:
        """Return a topic by its name, made on first use, and note its namespace where given."""
        topic = self._by_name.get(name)
        if topic is None:
            topic = self._by_name[name] = Topic(len(self.topics), namespace, name)
            self.topics.append(topic)
        elif namespace and not topic.namespace:
            topic.namespace = namespace
        return topic

    def knows(self, name: str) -> bool:
        """Say whether there is such a topic."""
        return name in self._by_name

    def append(self, topic: Topic, run: bytes, ids: Sequence[int], now: float) -> None:
        """Add a run; what is too much history goes."""
        topic.append(run, ids, now)
        self.total += len(run)
        if topic.size > self._topic_bytes or topic.end - topic.start > self._topic_count:
            self._trim(topic)
        elif self.total > self._total_bytes:
            self._trim(max(self.topics, key=lambda t: t.size))

    def _trim(self, topic: Topic) -> None:
        bounds, floor = self.bounds, topic.floor
        while (
            topic.size > bounds.topic_bytes
            or topic.end - topic.start > bounds.topic_count
            or self.total > bounds.total_bytes
        ):
            freed = topic.drop_oldest(floor)
            if not freed:
                return
            self._lost(topic, freed)

    def _lost(self, topic: Topic, freed: int) -> None:
        self.total -= freed
        self.moved[topic] = None

    def has_room(self, topic: Topic, size: int) -> bool:
        """Say whether a topic can take so many bytes more without losing what somebody wants."""
        limit = self.bounds.pending
        if topic.size + size <= limit:
            return True
        floor = topic.floor
        while topic.size + size > limit:
            freed = topic.drop_oldest(floor)
            if not freed:
                return topic.start == topic.end  # a message larger than the limit, alone
            self._lost(topic, freed)
        return True

    def make_room(self, topic: Topic, size: int) -> int:
        """Drop what somebody still wants, oldest first; returns how many messages that were."""
        before = topic.start
        while topic.size + size > self.bounds.pending:
            freed = topic.drop_oldest(topic.end)
            if not freed:
                break
            self._lost(topic, freed)
        topic.dropped += topic.start - before
        return topic.start - before

    def age(self, now: float) -> list[Topic]:
        """Drop history that is too old; returns the topics that lost some."""
        changed = []
        for topic in self.topics:
            before = topic.start
            oldest = topic.oldest_at
            if oldest is None or now - oldest <= self.bounds.age:
                continue
            floor = topic.floor
            while oldest is not None and now - oldest > self.bounds.age:
                freed = topic.drop_oldest(floor)
                if not freed:
                    break
                self._lost(topic, freed)
                oldest = topic.oldest_at
            if topic.start > before:
                changed.append(topic)
        return changed

    def find(self, namespace: str, ids: Sequence[int]) -> Iterator[bytes]:
        """Yield the frames with these ids in the topics of a namespace, in the order of `ids`."""
        wanted = set(ids)
        found: dict[int, tuple[Topic, int]] = {}
        for topic in self.topics:
            if topic.namespace == namespace:
                for message_id, position in topic.find(wanted):
                    found.setdefault(message_id, (topic, position))
        for message_id in ids:
            if message_id in found:
                topic, position = found[message_id]
                yield topic.message_at(position)

    def restore(self, topic: Topic, base: int, run: bytes) -> int:
        """Take a run that a journal remembers; returns all flags of its messages together."""
        if topic.start == topic.end:
            topic.begin_at(base)
        ids, flags = [], 0
        for stored in messages_in(run):
            ids.append(stored.id)
            flags |= stored.flags
        topic.append(run, ids, time.time())
        self.total += len(run)
        return flags
