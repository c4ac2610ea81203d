"""The server's mind: what a frame of a client does, without any I/O.

The payload of a message is never looked into, nor its envelope.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final

from rustic_ai.core.errors import ProtocolError
from rustic_ai.core.messaging.backend.embedded_backend.answers import Answers
from rustic_ai.core.messaging.backend.embedded_backend.clients import Clients
from rustic_ai.core.messaging.backend.embedded_backend.delivery import Delivery
from rustic_ai.core.messaging.backend.embedded_backend.greeting import Greeter
from rustic_ai.core.messaging.backend.embedded_backend.intake import Intake
from rustic_ai.core.messaging.backend.embedded_backend.journal import Journal, Recovered
from rustic_ai.core.messaging.backend.embedded_backend.limits import Limits
from rustic_ai.core.messaging.backend.embedded_backend.places import PLACES, Places
from rustic_ai.core.messaging.backend.embedded_backend.protocol import (
    HEADER_SIZE,
    LARGE,
    MAX_STEP,
    PUBLISH,
    RESUME,
    SHARED,
    STEP,
    WELCOME,
    Frame,
    Op,
    pack,
    unpack_header,
    unpack_names,
)
from rustic_ai.core.messaging.backend.embedded_backend.session import Producer, Session
from rustic_ai.core.messaging.backend.embedded_backend.shared.book import BOOKED, Book
from rustic_ai.core.messaging.backend.embedded_backend.store import Bounds, Cursor, Store, Topic

_HOUSEKEEPING: Final = 1.0
"""Seconds between looks at what is too old."""
_TELL_DELAY: Final = 0.005
"""Seconds that a client may have to wait for the word that its messages are stored."""


class Core:
    """Applies frames to topics and cursors; says which sessions have output.

    Args:
        bounds: how much is kept.
        limits: what is refused.
        journal: keeps what must outlive the server; None: nothing does.
        epoch: identifies the life of what is stored, for clients that come back.
        life: identifies the server's process, for what is shared with it.
        token: what clients have to know whose socket proves nothing; None: nothing.
    """

    def __init__(
        self,
        bounds: Bounds | None = None,
        limits: Limits | None = None,
        *,
        journal: Journal | None = None,
        epoch: int = 0,
        life: int = 0,
        token: bytes | None = None,
    ) -> None:
        self.limits = limits or Limits()
        self.epoch = epoch
        self.life = life
        self.store = Store(bounds or Bounds())
        self._journal = journal
        self.dirty: dict[Session, None] = {}
        """Sessions that got output which `take_dirty` has not told of."""
        self.clients = Clients(self.limits.producers, self._forget_units)
        self._delivery = Delivery(self.dirty, self._remember if journal is not None else None)
        self.moved = self._delivery.moved
        """Topics whose slots `settle` looks at, which may bring output, too."""
        self.stalled = self._delivery.stalled
        """Those who wait for output to be sent; `drained` goes on with them."""
        self.book = Book(self.clients.session_of, self._delivery.send, self.moved, self._swept)
        self._places = Places(
            self.store,
            self._delivery,
            open_topic=self.open_topic,
            append=self._append_and_book,
            remember=self._remember,
            forget=self._forget,
            room_may_have_come=self._room_may_have_come,
            max_subscriptions=self.limits.subscriptions,
        )
        self._intake = Intake(
            self.store,
            self._delivery,
            self._append,
            self._remember_units if journal is not None else None,
            self.book,
            self.limits.max_frame,
            self.limits.max_payload,
        )
        self._answers = Answers(self.store, self._delivery.send, self._facts)
        self._greeter = Greeter(token, self._delivery.send)
        self._commands: dict[int, Callable[[Session, Frame], None]] = {
            Op.ACK: self._acknowledge,
            Op.TOPIC: self._tell_topic,
            Op.QUERY: self._answers.answer,
            Op.GOODBYE: self._say_goodbye,
            Op.LOOK: lambda session, frame: self.look(session, frame.id),
            **dict.fromkeys(PLACES, self._places.obey),
            **dict.fromkeys(BOOKED, self.book.obey),
        }
        self._parked: dict[Session, None] = {}
        self._next_look = 0.0
        self._untold_since, self._sessions = 0.0, 0
        self.evicted: list[Session] = []
        """Sessions that others took the place of; their connections are to be closed."""
        self.counted = {"refused_connections": 0, "streams": 0, "rings": 0}
        """What the loop counts, for the statistics."""

    def restore(self, recovered: Recovered) -> None:
        """Take up what a journal remembers."""
        for number, namespace, name in recovered.topics:
            topic = self.store.open_topic(namespace, name)
            assert topic.number == number
            topic.begin_at(recovered.starts.get(number, 0))
            topic.swept = recovered.swept.get(number, 0)
        for number, base, _, run in recovered.runs:
            topic = self.store.topics[number]
            if self.store.restore(topic, base, run) & SHARED:
                self.book.restored(topic, run, base)
        self._places.restore(recovered.cursors, recovered.crashes)
        self.clients.restore(recovered.producers)

    # Sessions

    def connected(self, peer: str = "", *, trusted: bool = True) -> Session:
        """Begin a session; `trusted`: its socket proves that it is the same user."""
        self._sessions += 1
        return Session(peer, trusted)

    def disconnected(self, session: Session) -> None:
        """End a session; lasting places wait for their subscriber to come back. Idempotent."""
        if session.gone:
            return
        session.gone = session.ended = True
        self._sessions -= 1
        self._parked.pop(session, None)
        self._intake.lost(session)
        self.book.session_lost(session)
        for cursor in list(session.cursors.values()):
            self._places.detach(cursor, lost=not session.said_goodbye)
            self._room_may_have_come(cursor.topic)
        self.clients.left(session)
        self.dirty.pop(session, None)

    def received(self, session: Session, data: bytes) -> None:
        """Apply what a client sent.

        Raises:
            ProtocolError: it broke the protocol; the session must end.
        """
        if session.buffer:
            session.buffer += data
            if len(session.buffer) < session.wanted:
                return
            data = bytes(session.buffer)
        used = self._take(session, data) if not session.channel_of else 0
        if session.channel_of and used < len(data):
            raise ProtocolError(summary="more on a channel than its greeting")
        if used < len(data):
            session.buffer = bytearray(data[used:])
        elif session.buffer:
            session.buffer = bytearray()

    def _take(self, session: Session, data: bytes) -> int:
        offset, end = 0, len(data)
        session.wanted = HEADER_SIZE
        while end - offset >= HEADER_SIZE:
            length, op, flags, aux, topic, n, id_ = unpack_header(data, offset)
            if not HEADER_SIZE <= length <= session.longest:
                self._check_length(session, length, op, flags)
            if end - offset < length:
                session.wanted = length
                break
            if op == PUBLISH and session.greeted:
                offset = self._intake.take_run(session, data, offset, end)
                if session.parked:
                    self._parked[session] = None
                continue
            if op == STEP and session.greeted:
                self._intake.take_step(session, data, offset + HEADER_SIZE, offset + length, flags)
                if session.parked:
                    self._parked[session] = None
                if self._intake.roomier:
                    self._intake.go_on()
            else:
                raw = data[offset : offset + length]
                self._control(session, Frame(op, flags, aux, topic, n, id_, raw))
            offset += length
            if session.ended or session.channel_of:
                return end if session.ended else offset
        return offset

    def look(self, session: Session, until: int | None = None) -> None:
        """Apply what stands in a client's ring, or what of it is before `until`; as `received`."""
        data = session.ring.take(until) if session.ring is not None else b""
        if data and self._take(session, data) < len(data):
            raise ProtocolError(summary="a part of a frame in a ring")

    def _check_length(self, session: Session, length: int, op: int, flags: int) -> None:
        longest = session.longest
        if session.greeted:
            longest *= MAX_STEP if op == STEP else 1
            longest += self.limits.max_payload if flags & LARGE else 0
        if not HEADER_SIZE <= length <= longest:
            raise ProtocolError(
                summary=f"a frame of {length:,} bytes (allowed: {HEADER_SIZE} to {longest:,})"
            )

    # What is stored

    def _append(self, topic: Topic, run: bytes, ids: Sequence[int]) -> None:
        base = topic.end
        self.store.append(topic, run, ids, time.time())
        if self._journal is not None:
            self._journal.run(topic.number, base, len(ids), run)
            if self.store.moved:
                self._tell_moved(self._journal)
        if topic.cursors:
            self._delivery.push(topic, run, base, len(ids))

    def _append_and_book(self, topic: Topic, run: bytes, ids: Sequence[int], flags: int) -> None:
        base = topic.end
        self._append(topic, run, ids)
        if flags & SHARED:
            self.book.stored(topic, run, base)

    def _tell_moved(self, journal: Journal) -> None:
        for topic in self.store.moved:
            journal.trimmed(topic.number, topic.start)
        self.store.moved.clear()

    def open_topic(self, namespace: str, name: str) -> Topic:
        """Return a topic, made on first use.

        Raises:
            ProtocolError: there are too many.
        """
        if not self.store.knows(name):
            if len(self.store.topics) >= self.limits.topics:
                raise ProtocolError(
                    summary=f"topic {name!r} would be one more than {self.limits.topics:,}"
                )
            topic = self.store.open_topic(namespace, name)
            if self._journal is not None:
                self._journal.topic(topic.number, namespace, name)
        return self.store.open_topic(namespace, name)

    def _remember_units(self, producer: Producer) -> None:
        if self._journal is not None:
            self._journal.producer(producer.client, producer.units)

    def _swept(self, topic: Topic) -> None:
        if self._journal is not None:
            self._journal.swept(topic.number, topic.swept)

    def _forget_units(self, client: int) -> None:
        if self._journal is not None:
            self._journal.producer(client, 0)

    def _remember(self, cursor: Cursor) -> None:
        if self._journal is not None:
            self._journal.cursor(cursor.topic.number, cursor.subscriber, cursor.acked)
            if cursor.crashes:
                self._journal.crashed(cursor.topic.number, cursor.subscriber, cursor.crashes)

    def _forget(self, cursor: Cursor) -> None:
        if self._journal is not None:
            self._journal.forget(cursor.topic.number, cursor.subscriber)

    def _room_may_have_come(self, topic: Topic) -> None:
        if topic.waiting:
            self._intake.go_on(topic)

    # Frames

    def _control(self, session: Session, frame: Frame) -> None:
        if not session.greeted:
            if frame.op in {Op.CHANNEL, Op.RING}:
                self.clients.open_channel(session, frame.id, for_ring=frame.op == Op.RING)
                self._delivery.send(session, pack(Op(frame.op), id=self.life))
                return
            client = self._greeter.hear(session, frame)
            if client is not None:
                self._welcome(session, client)
            return
        obey = self._commands.get(frame.op)
        if obey is None:
            raise ProtocolError(summary=f"a frame of unknown kind {frame.op}")
        obey(session, frame)

    def _acknowledge(self, session: Session, frame: Frame) -> None:
        cursor = session.cursors.get(frame.aux)
        if cursor is not None:  # else it crossed our answer to its UNSUBSCRIBE
            self._intake.take_ack(session, cursor, frame.id)
            self._room_may_have_come(cursor.topic)

    def _tell_topic(self, session: Session, frame: Frame) -> None:
        (namespace, name), _ = unpack_names(frame.body, 2)
        topic = self.open_topic(namespace, name)
        if frame.flags & RESUME:
            self.book.awaits(topic)
        self._delivery.send(session, pack(Op.TOPIC, n=frame.n, topic=topic.number))

    def _say_goodbye(self, session: Session, _: Frame) -> None:
        session.ended = session.said_goodbye = True

    def _welcome(self, session: Session, client: int) -> None:
        producer = self.clients.open(client)
        if producer.session is not None:  # its old connection is lost, and we have not seen it yet
            self.evicted.append(producer.session)
            self.disconnected(producer.session)
        producer.session, session.producer = session, producer
        session.greeted, session.longest = True, self.limits.max_frame
        session.told = producer.units
        limits, body = self.limits, WELCOME.pack(self.epoch, self.limits.max_payload, self.life)
        self._delivery.send(session, pack(Op.HELLO, body, n=limits.max_frame, id=producer.units))

    # Time

    def settle(self) -> None:
        """Let go of slots that nobody needs; before a commit, since their owners are told."""
        if self.moved:
            self.book.sweep()

    def take_dirty(self) -> list[Session]:
        """Return the sessions that got output since the last call."""
        self.settle()
        dirty = list(self.dirty)
        if self._intake.untold:
            for session in dirty:
                self._intake.tell_along(session)
        self.dirty.clear()
        return dirty

    def drained(self) -> None:
        """Go on with whoever waited for output to be sent."""
        self._delivery.go_on()

    def tick(self, now: float) -> float | None:
        """Do what time brings; returns in how many seconds to call again, None: not needed.

        Args:
            now: seconds on a clock that does not step.
        """
        untold = self._intake.untold
        if untold:
            if not self._untold_since:
                self._untold_since = now
            if now - self._untold_since >= _TELL_DELAY:
                for session in list(untold):
                    self._intake.tell(session)
        if not untold:
            self._untold_since = 0.0
        if now >= self._next_look:
            self._next_look = now + _HOUSEKEEPING
            self._look_around(now)
        if untold:
            return max(0.0, self._untold_since + _TELL_DELAY - now)
        busy = self._parked or self.store.total or not self.book.is_empty
        return self._next_look - now if busy else None

    def _look_around(self, now: float) -> None:
        for session in list(self._parked):
            if not session.parked:
                del self._parked[session]
            elif now - session.parked_at > self.limits.wait_for_room:
                self._intake.refuse_overdue(session)
        self.book.tick(now)
        self.store.age(time.time())
        if self._journal is not None:
            self._tell_moved(self._journal)
        self._places.drop_old(now)

    def _facts(self) -> dict[str, object]:
        return {
            "epoch": self.epoch,
            "connections": self._sessions,
            **self.counted,
            "waiting_publishers": len(self._parked),
            "shared_memory": self.book.statistics(),
            "journal": self._journal.statistics() if self._journal is not None else None,
        }
