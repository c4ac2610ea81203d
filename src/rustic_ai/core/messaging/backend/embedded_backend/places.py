"""Places of subscribers in topics: made, taken, lost, given up. Without any I/O."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from rustic_ai.core.errors import ProtocolError
from rustic_ai.core.messaging.backend.embedded_backend.delivery import Delivery
from rustic_ai.core.messaging.backend.embedded_backend.protocol import (
    DEAD,
    DURABLE,
    FORGET,
    FROM_NOW,
    HEADER,
    HEADER_SIZE,
    LARGE,
    RESUME,
    SHARED,
    Frame,
    Op,
    pack,
    unpack_names,
)
from rustic_ai.core.messaging.backend.embedded_backend.session import Session
from rustic_ai.core.messaging.backend.embedded_backend.store import Cursor, Store, Topic
from rustic_ai.core.messaging.core.dead_letter import (
    DEAD_LETTER_TOPIC,
    DeadLetterNote,
    pack_dead_letter,
)

PLACES = (Op.SUBSCRIBE, Op.UNSUBSCRIBE, Op.DECLARE, Op.DISOWN)
"""What `Places.obey` obeys."""


class Places:
    """Connects sessions to cursors.

    Args:
        store: the topics.
        delivery: moves the cursors.
        open_topic: returns a topic of a namespace, made on first use.
        append: stores a run, its ids and flags, as if it had been published.
        remember: is told of places that must outlive the server.
        forget: is told of places that need not.
        room_may_have_come: is told of topics where nobody may want the oldest any more.
        max_subscriptions: of one connection.
    """

    def __init__(
        self,
        store: Store,
        delivery: Delivery,
        *,
        open_topic: Callable[[str, str], Topic],
        append: Callable[[Topic, bytes, list[int], int], None],
        remember: Callable[[Cursor], None],
        forget: Callable[[Cursor], None],
        room_may_have_come: Callable[[Topic], None],
        max_subscriptions: int,
    ) -> None:
        self._store = store
        self._delivery = delivery
        self._open_topic = open_topic
        self._append = append
        self._remember = remember
        self._forget = forget
        self._room_may_have_come = room_may_have_come
        self._max_subscriptions = max_subscriptions

    def restore(
        self, positions: Mapping[tuple[int, str], int], crashes: Mapping[tuple[int, str], int]
    ) -> None:
        """Take up what a journal remembers: topic and subscriber -> position, number of crashes."""
        for (number, subscriber), position in positions.items():
            topic = self._store.topics[number]
            cursor = self._new_cursor(topic, subscriber, position, durable=True)
            cursor.crashes = crashes.get((number, subscriber), 0) if cursor.acked == position else 0
            if cursor.crashes:
                cursor.seen = position + 1

    def obey(self, session: Session, frame: Frame) -> None:
        """Do what a frame about places asks.

        Raises:
            ProtocolError: it cannot be done.
        """
        match frame.op:
            case Op.SUBSCRIBE:
                self._subscribe(session, frame)
            case Op.UNSUBSCRIBE:
                self._unsubscribe(session, frame)
            case Op.DECLARE:
                (subscriber,), _ = unpack_names(frame.body, 1)
                self._declare(self._known_topic(frame), subscriber, frame.id)
                self._delivery.send(session, pack(Op.DECLARE, n=frame.n))
            case Op.DISOWN:
                (namespace, subscriber), _ = unpack_names(frame.body, 2)
                self._disown(namespace, subscriber)
                self._delivery.send(session, pack(Op.DISOWN, n=frame.n))

    def _known_topic(self, frame: Frame) -> Topic:
        topic = self._store.topic(frame.topic)
        if topic is None:
            raise ProtocolError(summary=f"topic number {frame.topic} was never given")
        return topic

    def _subscribe(self, session: Session, frame: Frame) -> None:
        topic = self._known_topic(frame)
        if frame.aux in session.cursors or not frame.n:
            raise ProtocolError(summary=f"subscription {frame.aux} exists, or has no window")
        if len(session.cursors) >= self._max_subscriptions:
            raise ProtocolError(
                summary=f"one more subscription than {self._max_subscriptions:,} of a connection"
            )
        (subscriber,), rest = unpack_names(frame.body, 1)
        cursor = self._attach(
            session,
            topic,
            frame.aux,
            subscriber,
            position=frame.id,
            durable=bool(frame.flags & DURABLE),
            resume=bool(frame.flags & RESUME),
        )
        cursor.window = frame.n
        cursor.max_attempts = rest[0] if rest else 0
        self._bury_if_hopeless(cursor)
        answer = pack(Op.SUBSCRIBE, aux=frame.aux, topic=topic.number, id=cursor.sent)
        self._delivery.send(session, answer)
        self._delivery.pump(cursor)

    def _unsubscribe(self, session: Session, frame: Frame) -> None:
        cursor = session.cursors.get(frame.aux)
        if cursor is not None and frame.flags & FORGET:
            self.drop(cursor)
        elif cursor is not None:
            self.detach(cursor, lost=False)
        self._delivery.send(session, pack(Op.UNSUBSCRIBE, aux=frame.aux))

    def _disown(self, namespace: str, subscriber: str) -> None:
        for topic in self._store.topics:
            cursor = topic.cursor_of(subscriber) if topic.namespace == namespace else None
            if cursor is not None:
                self.drop(cursor)

    def _declare(self, topic: Topic, subscriber: str, position: int) -> Cursor:
        """Return a subscriber's lasting place in a topic, made at `position` where it has none."""
        cursor = topic.cursor_of(subscriber)
        if cursor is None:
            cursor = self._new_cursor(topic, subscriber, position, durable=True)
            self._remember(cursor)
        return cursor

    def _new_cursor(self, topic: Topic, subscriber: str, position: int, *, durable: bool) -> Cursor:
        start = topic.end if position == FROM_NOW else min(max(position, topic.start), topic.end)
        cursor = Cursor(
            topic,
            subscriber,
            durable,
            acked=start,
            sent=start,
            begun=start,
            idle_since=time.monotonic(),
        )
        topic.cursors.append(cursor)
        return cursor

    def _attach(
        self,
        session: Session,
        topic: Topic,
        number: int,
        subscriber: str,
        *,
        position: int,
        durable: bool,
        resume: bool,
    ) -> Cursor:
        """Connect a session to a subscriber's place; who held a durable one before has lost it."""
        if durable:
            cursor = self._declare(topic, subscriber, position)
            holder = cursor.session
            if holder is not None:
                if holder is not session:
                    holder.lost[cursor.number] = cursor
                self.detach(cursor, lost=not resume)
        else:
            cursor = self._new_cursor(topic, subscriber, position, durable=False)
        cursor.sent = cursor.acked
        if resume:
            cursor.crashes = max(0, cursor.crashes - 1)
            self._remember(cursor)
            cursor.sent = min(max(position, cursor.sent), topic.end)
            cursor.seen = min(cursor.seen, cursor.sent)
            cursor.gap = False  # told now, it would say of what is in hand that it was handled
        session.lost.pop(number, None)
        cursor.session, cursor.number = session, number
        session.cursors[number] = cursor
        return cursor

    def detach(self, cursor: Cursor, *, lost: bool) -> None:
        """Disconnect a place from its session; `lost`: its process did not take leave."""
        session = cursor.session
        if session is not None:
            session.cursors.pop(cursor.number, None)
        cursor.session = None
        cursor.idle_since = time.monotonic()
        if not cursor.durable:
            self.drop(cursor)
        elif lost and cursor.sent > cursor.acked:
            cursor.crashes += 1
            cursor.seen = max(cursor.seen, cursor.sent)
            self._remember(cursor)

    def drop(self, cursor: Cursor) -> None:
        """Give up a place."""
        if cursor.session is not None:
            cursor.session.cursors.pop(cursor.number, None)
            cursor.session = None
        if cursor in cursor.topic.cursors:
            cursor.topic.cursors.remove(cursor)
            if cursor.durable:
                self._forget(cursor)
            if cursor.topic.shared:
                self._delivery.moved[cursor.topic] = None
            self._room_may_have_come(cursor.topic)

    def drop_old(self, now: float) -> None:
        """Give up places whose subscribers have been away for so long that they do not come."""
        age = self._store.bounds.age
        for topic in self._store.topics:
            for cursor in list(topic.cursors):
                if cursor.session is None and now - cursor.idle_since > age:
                    self.drop(cursor)

    def _bury_if_hopeless(self, cursor: Cursor) -> None:
        """Make the message that was in hand at too many crashes a dead letter."""
        if cursor.max_attempts and cursor.crashes >= cursor.max_attempts:
            topic = cursor.topic
            if topic.start <= cursor.acked < topic.end:
                self._bury(cursor, topic.message_at(cursor.acked))
            cursor.acked = min(cursor.acked + 1, topic.end)
            cursor.sent = max(cursor.sent, cursor.acked)
            cursor.crashes = 0
            self._remember(cursor)

    def _bury(self, cursor: Cursor, frame: bytes) -> None:
        topic = cursor.topic
        namespace = topic.namespace or topic.name.partition(":")[0]
        graveyard = self._open_topic(namespace, f"{namespace}:{DEAD_LETTER_TOPIC}")
        _, _, flags, _, _, _, message_id = HEADER.unpack_from(frame)
        if topic is graveyard or flags & DEAD:
            return  # it lies there already
        note = DeadLetterNote(
            topic.name,
            cursor.subscriber,
            cursor.crashes,
            f"its process was lost {cursor.crashes} times while it was being handled",
            time.time_ns() // 1_000_000,
        )
        body = pack_dead_letter(note, frame[HEADER_SIZE:])
        flags = DEAD | flags & (SHARED | LARGE)
        run = pack(Op.PUBLISH, body, flags=flags, topic=graveyard.number, id=message_id)
        topic.dead += 1
        self._append(graveyard, run, [message_id], flags)
