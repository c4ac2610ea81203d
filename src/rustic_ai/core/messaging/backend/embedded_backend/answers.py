"""Answers to what clients ask: history, subscribers, statistics. Without any I/O."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Callable, Iterable
from typing import Any

from rustic_ai.core.errors import ProtocolError
from rustic_ai.core.messaging.backend.embedded_backend.protocol import (
    FROM_NOW,
    Frame,
    Op,
    Query,
    pack,
    unpack_names,
)
from rustic_ai.core.messaging.backend.embedded_backend.session import Session
from rustic_ai.core.messaging.backend.embedded_backend.store import CHUNK, Cursor, Store, Topic


class Answers:
    """Reads the store.

    Args:
        store: the topics.
        send: puts a frame into a session's output.
        server_facts: numbers of the server itself, for the statistics.
    """

    def __init__(
        self,
        store: Store,
        send: Callable[[Session, bytes], None],
        server_facts: Callable[[], dict[str, Any]],
    ) -> None:
        self._store = store
        self._send = send
        self._server_facts = server_facts

    def known_topic(self, frame: Frame) -> Topic:
        """Return the topic that a frame names.

        Raises:
            ProtocolError: there is none.
        """
        topic = self._store.topic(frame.topic)
        if topic is None:
            raise ProtocolError(summary=f"topic number {frame.topic} was never given")
        return topic

    def answer(self, session: Session, frame: Frame) -> None:
        """Answer a QUERY."""
        match frame.aux:
            case Query.FROM_POSITION:
                self._send_history(session, frame, frame.id, FROM_NOW)
            case Query.SINCE_ID:
                start = self.known_topic(frame).after(frame.id)
                self._send_history(session, frame, start, FROM_NOW)
            case Query.NEXT_AFTER_ID:
                self._send_history(session, frame, self.known_topic(frame).after(frame.id), 1)
            case Query.BY_IDS:
                self._send_by_ids(session, frame)
            case Query.SUBSCRIBERS:
                (namespace,), _ = unpack_names(frame.body, 1)
                self._send_json(session, frame, self._subscribers(namespace))
            case Query.STATISTICS:
                self._send_json(session, frame, self.statistics())
            case _:
                raise ProtocolError(summary=f"a query of unknown kind {frame.aux}")

    def _send_json(self, session: Session, frame: Frame, facts: object) -> None:
        self._send(session, pack(Op.ROWS, json.dumps(facts).encode(), n=frame.n))

    def _send_history(self, session: Session, frame: Frame, start: int, most: int) -> None:
        topic = self.known_topic(frame)
        run, position = topic.chunk(min(start, topic.end), most)
        more = most > 1 and position < topic.end
        self._send(session, pack(Op.ROWS, run, n=frame.n, aux=more, id=position))

    def _send_by_ids(self, session: Session, frame: Frame) -> None:
        (namespace,), rest = unpack_names(frame.body, 1)
        if len(rest) % 8:
            raise ProtocolError(summary="a list of ids that is cut off")
        # Each once: else a short question could have an answer of any size.
        ids = list(dict.fromkeys(struct.unpack(f"<{len(rest) // 8}Q", rest)))
        self._send_rows(session, frame.n, self._store.find(namespace, ids))

    def _send_rows(self, session: Session, request: int, frames: Iterable[bytes]) -> None:
        chunk: list[bytes] = []
        size = 0
        for frame in frames:
            chunk.append(frame)
            size += len(frame)
            if size >= CHUNK:
                self._send(session, pack(Op.ROWS, b"".join(chunk), n=request, aux=1))
                chunk, size = [], 0
        self._send(session, pack(Op.ROWS, b"".join(chunk), n=request))

    def _subscribers(self, namespace: str) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for topic in self._store.topics:
            names = [c.subscriber for c in topic.cursors if c.session is not None]
            if names and topic.name.startswith(f"{namespace}:"):
                found[topic.name] = sorted(names)
        return found

    def statistics(self) -> dict[str, Any]:
        """Return numbers of the server, of each topic, and of each subscriber."""
        return {
            "server": {
                **self._server_facts(),
                "topics": len(self._store.topics),
                "bytes": self._store.total,
            },
            "topics": {topic.name: _of_topic(topic) for topic in self._store.topics},
        }


def _of_topic(topic: Topic) -> dict[str, Any]:
    oldest = topic.oldest_at
    return {
        "messages_in": topic.end,
        "stored": topic.end - topic.start,
        "bytes": topic.size,
        "oldest_age": time.time() - oldest if oldest is not None else None,
        "dead": topic.dead,
        "dropped": topic.dropped,
        "waiting_publishers": len(topic.waiting),
        "subscribers": {cursor.subscriber: _of_cursor(cursor) for cursor in topic.cursors},
    }


def _of_cursor(cursor: Cursor) -> dict[str, Any]:
    return {
        "connected": cursor.session is not None,
        "durable": cursor.durable,
        "pending": cursor.topic.end - cursor.acked,
        "in_flight": cursor.sent - cursor.acked if cursor.session is not None else 0,
        "handled": cursor.acked - cursor.begun,
        "redelivered": cursor.redelivered,
        "skipped": cursor.skipped,
        "crashes": cursor.crashes,
    }
