"""Topics and their messages, as plain data."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from rustic_ai.core.messaging.core.message_id import id_time_ms

CHUNK = 256 << 10
"""About how many bytes one answer to a query holds."""


@dataclass(slots=True)
class Topic:
    """One topic's log: PUBLISH frames as they came; a position is an index into it."""

    number: int
    name: str
    frames: list[bytes] = field(default_factory=list)
    ids: array[int] = field(default_factory=lambda: array("Q"))

    @property
    def end(self) -> int:
        """Position after the last message."""
        return len(self.frames)

    def append(self, message_id: int, frame: bytes) -> None:
        """Add a message."""
        self.frames.append(frame)
        self.ids.append(message_id)

    def after(self, message_id: int) -> int:
        """Return the position after a message, or of the first later one where it is not here."""
        try:
            return self.ids.index(message_id) + 1
        except ValueError:
            made = id_time_ms(message_id)
            return next((i for i, x in enumerate(self.ids) if id_time_ms(x) > made), self.end)

    def chunk(self, start: int, most: int) -> tuple[list[bytes], int]:
        """Return frames from a position on, about `CHUNK` bytes and at most `most` of them."""
        position, size, last = start, 0, min(self.end, start + most)
        while position < last and (size == 0 or size < CHUNK):
            size += len(self.frames[position])
            position += 1
        return self.frames[start:position], position


class Store:
    """All topics of a server."""

    def __init__(self) -> None:
        self._topics: list[Topic] = []
        self._by_name: dict[str, Topic] = {}
        self._by_namespace: dict[str, dict[int, Topic]] = {}

    def topic(self, number: int) -> Topic | None:
        """Return a topic by its number."""
        return self._topics[number] if number < len(self._topics) else None

    def open_topic(self, namespace: str, name: str) -> Topic:
        """Return a topic by its name, made on first use, and note its namespace where given."""
        topic = self._by_name.get(name)
        if topic is None:
            topic = self._by_name[name] = Topic(len(self._topics), name)
            self._topics.append(topic)
        if namespace:
            self._by_namespace.setdefault(namespace, {})[topic.number] = topic
        return topic

    def find(self, namespace: str, ids: Sequence[int]) -> Iterator[bytes]:
        """Yield the frames with these ids in the topics of a namespace, in the order of `ids`."""
        wanted = set(ids)
        found: dict[int, bytes] = {}
        for topic in self._by_namespace.get(namespace, {}).values():
            for position, message_id in enumerate(topic.ids):
                if message_id in wanted:
                    found.setdefault(message_id, topic.frames[position])
        return (found[message_id] for message_id in ids if message_id in found)
