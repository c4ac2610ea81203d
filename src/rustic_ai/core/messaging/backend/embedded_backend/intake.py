"""What clients send: messages and steps, into topics that may be full. Without any I/O."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final

from rustic_ai.core.errors import ProtocolError
from rustic_ai.core.messaging.backend.embedded_backend.delivery import Delivery
from rustic_ai.core.messaging.backend.embedded_backend.protocol import (
    ACK,
    ACK_NOW,
    HEADER_SIZE,
    LARGE,
    PUBLISH,
    SHARED,
    Op,
    messages_in,
    pack,
    unpack_header,
)
from rustic_ai.core.messaging.backend.embedded_backend.session import (
    Batch,
    Producer,
    Run,
    Session,
)
from rustic_ai.core.messaging.backend.embedded_backend.shared.book import Book
from rustic_ai.core.messaging.backend.embedded_backend.store import Cursor, Store, Topic

_TELL_UNITS: Final = 128
"""Units after which their client is told at once that they are stored."""
_TELL_ALONG: Final = 8
"""Units after which it is told when something is sent to it anyway."""
_MAX_PARKED = 1 << 16
"""More batches than a client's window has units, acknowledgements between them included."""
_OVERDRAFT: Final = 2
"""By how much a topic may exceed its limit for a sender that nobody but itself holds up."""


class Intake:
    """Applies batches, and parks those that a full topic has no room for.

    Args:
        store: the topics.
        delivery: is told of what was stored.
        append: stores a run.
        counted: is told of clients of whom units were stored; None: nobody is.
        book: of slots in shared memory.
        max_frame: size of the largest message.
        max_payload: of the largest with parts in its body.
    """

    def __init__(
        self,
        store: Store,
        delivery: Delivery,
        append: Callable[[Topic, bytes, Sequence[int]], None],
        counted: Callable[[Producer], None] | None,
        book: Book,
        max_frame: int,
        max_payload: int,
    ) -> None:
        self._counted = counted
        self._book = book
        self._max_frame = max_frame
        self._max_payload = max_payload
        self.roomier: dict[Topic, None] = {}
        """Topics that got room by the last step; `go_on` fills it."""
        self._going_on = False
        self._store = store
        self._pending = store.bounds.pending
        self._delivery = delivery
        self._append = append
        self.untold: dict[Session, None] = {}
        """Sessions that wait for the word that their units are stored."""

    def take_run(self, session: Session, data: bytes, offset: int, end: int) -> int:
        """Apply the PUBLISH frames of one topic that stand at `offset`; returns where they end."""
        first = offset
        length, _, flags, _, number, _, message_id = unpack_header(data, offset)
        topic = self._store.topic(number) or self._topic(number)
        ids = [message_id]
        offset += length
        if offset < end:
            offset, flags = _follow(data, offset, end, number, ids, flags)
        run = data if first == 0 and offset == len(data) else data[first:offset]
        if flags & SHARED or len(run) > self._max_frame:
            self._check(session, run, flags)
        if session.parked or topic.size + len(run) > self._pending:
            self.take(session, len(ids), (), ((topic, run, ids, flags),), bool(flags & ACK_NOW))
        else:  # nearly always
            base = topic.end
            self._append(topic, run, ids)
            if flags & SHARED:
                self._book.stored(topic, run, base)
            self._count(session, len(ids), bool(flags & ACK_NOW))
        return offset

    def take_step(self, session: Session, data: bytes, offset: int, end: int, flags: int) -> None:
        """Apply a STEP, whose frames stand from `offset` to `end`.

        Raises:
            ProtocolError: something in it is wrong; nothing of it was applied.
        """
        acks: list[tuple[Cursor, int]] = []
        runs: list[Run] = []
        is_full, topics = False, self._store.topics
        while offset < end:
            if end - offset < HEADER_SIZE:
                raise ProtocolError(summary="a step that is cut off")
            length, op, more, aux, number, _, id_ = unpack_header(data, offset)
            if not HEADER_SIZE <= length <= end - offset:
                raise ProtocolError(summary=f"a frame of {length:,} bytes in a step")
            if op == PUBLISH:
                first, ids = offset, [id_]
                offset += length
                if offset < end:
                    offset, more = _follow(data, offset, end, number, ids, more)
                run = data[first:offset]
                if more & SHARED or len(run) > self._max_frame:
                    self._check(session, run, more)
                topic = topics[number] if number < len(topics) else self._topic(number)
                is_full = is_full or topic.size + len(run) > self._pending
                runs.append((topic, run, ids, more))
            elif op == ACK:
                cursor = session.cursors.get(aux) or session.lost.get(aux)
                if cursor is not None:
                    if id_ > cursor.sent and cursor.session is session:
                        raise ProtocolError(
                            summary=f"position {id_} acknowledged before it was delivered"
                        )
                    acks.append((cursor, id_))
                offset += length
            else:
                raise ProtocolError(summary=f"a frame of kind {op} in a step")
        urgent = bool(flags & ACK_NOW)
        if is_full or session.parked or session.lost:
            self.take(session, 1, acks, runs, urgent)
        else:  # nearly always
            self._carry_out(session, acks, runs, 1, urgent)

    def _check(self, session: Session, run: bytes, flags: int) -> None:
        """Make sure that a run may be stored."""
        if flags & SHARED:
            assert session.producer is not None
            self._book.check(session.producer.client, run)
        if len(run) <= self._max_frame:
            return
        for stored in messages_in(run):
            size = HEADER_SIZE + stored.end - stored.start
            limit = self._max_payload if stored.flags & LARGE else self._max_frame
            if size > limit:
                raise ProtocolError(summary=f"a frame of {size:,} bytes (allowed: {limit:,})")

    def _topic(self, number: int) -> Topic:
        topic = self._store.topic(number)
        if topic is None:
            raise ProtocolError(summary=f"topic number {number} was never given")
        return topic

    def take_ack(self, session: Session, cursor: Cursor, position: int) -> None:
        """Note that what is before a position was handled.

        Behind a step of the same subscription that waits for room it waits, too: else what came
        out of a message could be lost with the session, and the message would not come again.

        Raises:
            ProtocolError: it was never delivered.
        """
        if position <= cursor.sent and any(
            cursor is other for batch in session.parked for other, _ in batch.acks
        ):
            session.parked.append(Batch(0, ((cursor, position),), (), urgent=False))
        else:
            self._delivery.acknowledge(cursor, position)

    def take(
        self,
        session: Session,
        units: int,
        acks: Sequence[tuple[Cursor, int]],
        runs: Sequence[Run],
        urgent: bool,  # noqa: FBT001 - as a `Batch` has it
    ) -> None:
        """Apply a batch, or park it behind those that wait; arguments as of `Batch`.

        Raises:
            ProtocolError: more waits than a client may send without our word.
        """
        if len(session.parked) > _MAX_PARKED:
            raise ProtocolError(summary="the client sends on without waiting for our word")
        shared = [s for _, run, _, fl in runs if fl & SHARED for s in self._book.retain(run)]
        batch = Batch(units, acks, runs, urgent, shared)
        if session.parked:
            session.parked.append(batch)
        elif not self._apply(session, batch):
            session.parked.append(batch)
            session.parked_at = time.monotonic()

    def _apply(self, session: Session, batch: Batch) -> bool:
        """Apply a batch; False where it must wait for room."""
        if session.lost and any(cursor in session.lost.values() for cursor, _ in batch.acks):
            self._fence(session)
            self._book.release(batch.shared)
            return True
        store = self._store
        for topic, run, _, _ in batch.runs:
            if store.has_room(topic, len(run)) or self._waits_for_itself(session, topic, len(run)):
                continue
            match store.bounds.overflow:
                case "block":
                    topic.waiting[session] = None
                    return False
                case "error":
                    self._refuse(session, batch, topic)
                    return True
                case "drop_oldest":
                    store.make_room(topic, len(run))
        self._carry_out(session, batch.acks, batch.runs, batch.units, batch.urgent)
        self._book.release(batch.shared)
        return True

    def _carry_out(
        self,
        session: Session,
        acks: Sequence[tuple[Cursor, int]],
        runs: Sequence[Run],
        units: int,
        urgent: bool,  # noqa: FBT001
    ) -> None:
        for cursor, position in acks:
            if cursor.session is session:
                # It was delivered, maybe on a subscription before this one: `take_step` has looked.
                cursor.sent = max(cursor.sent, position)
                self._delivery.acknowledge(cursor, position)
                if cursor.topic.waiting:
                    self.roomier[cursor.topic] = None
        for topic, run, ids, flags in runs:
            base = topic.end
            self._append(topic, run, ids)
            if flags & SHARED:
                self._book.stored(topic, run, base)
        self._count(session, units, urgent)

    def _fence(self, session: Session) -> None:
        """End a session that goes on with messages which another process has got by now.

        What comes out of them is stored when that one has handled them, so not from this one, too.
        """
        session.ended = True
        reason = b"another process has taken the place of its subscriber"
        self._delivery.send(session, pack(Op.ERROR, reason))

    def _waits_for_itself(self, session: Session, topic: Topic, size: int) -> bool:
        """Say whether the sender is the one who is behind: then its waiting would never end."""
        slowest = min(topic.cursors, key=lambda cursor: cursor.acked, default=None)
        if slowest is None or slowest.session is not session:
            return False
        return topic.size + size <= _OVERDRAFT * self._store.bounds.pending

    def _count(self, session: Session, units: int, urgent: bool) -> None:  # noqa: FBT001
        producer = session.producer
        assert producer is not None
        producer.units += units
        if self._counted is not None:
            self._counted(producer)
        if urgent or producer.units - session.told >= _TELL_UNITS:
            self.tell(session)
        else:
            self.untold[session] = None

    def tell_along(self, session: Session) -> None:
        """Tell a client to which something is sent anyway, unless it is hardly worth it."""
        producer = session.producer
        if producer is not None and producer.units - session.told >= _TELL_ALONG:
            self.tell(session)

    def tell(self, session: Session) -> None:
        """Tell a client how many of its units are stored."""
        self.untold.pop(session, None)
        producer = session.producer
        if producer is not None and producer.units > session.told:
            session.told = producer.units
            self._delivery.send(session, pack(Op.PUBLISHED, id=producer.units))

    def _refuse(self, session: Session, batch: Batch, topic: Topic) -> None:
        producer = session.producer
        assert producer is not None
        slowest = min(topic.cursors, key=lambda cursor: cursor.acked, default=None)
        text = f"topic {topic.name!r} is full"
        if slowest is not None:
            behind = topic.end - slowest.acked
            text += f": subscriber {slowest.subscriber!r} is {behind:,} messages behind"
        for unit in range(producer.units + 1, producer.units + batch.units + 1):
            self._delivery.send(session, pack(Op.REFUSED, text.encode(), id=unit))
        self._book.release(batch.shared)
        self._count(session, batch.units, batch.urgent)

    def go_on(self, topic: Topic | None = None) -> None:
        """Apply what waits for room in a topic, and in those that got some meanwhile."""
        if topic is not None:
            self.roomier[topic] = None
        if self._going_on:
            return
        self._going_on = True
        try:
            while self.roomier:
                self._fill(self.roomier.popitem()[0])
        finally:
            self._going_on = False

    def _fill(self, topic: Topic) -> None:
        for session in list(topic.waiting):
            if not self._store.has_room(topic, 1):
                break
            self._unpark(session, topic)
        # Who was behind somebody else may be behind only itself now.
        slowest = min(topic.cursors, key=lambda cursor: cursor.acked, default=None)
        if slowest is not None and slowest.session in topic.waiting:
            self._unpark(slowest.session, topic)

    def _unpark(self, session: Session, topic: Topic) -> None:
        topic.waiting.pop(session, None)
        while session.parked and not session.ended and self._apply(session, session.parked[0]):
            session.parked.popleft()
            session.parked_at = time.monotonic()

    def refuse_overdue(self, session: Session) -> None:
        """Give up what has waited too long for room, so that its sender need not wait for ever."""
        batch = session.parked.popleft()
        full = next((t for t, *_ in batch.runs if session in t.waiting), batch.runs[0][0])
        self._refuse(session, batch, full)
        self._unpark(session, full)
        self.go_on(full)

    def lost(self, session: Session) -> None:
        """Forget what a session that has ended has sent and what was not stored."""
        for batch in session.parked:
            for topic, *_ in batch.runs:
                topic.waiting.pop(session, None)
            self._book.release(batch.shared)
        session.parked.clear()
        self.untold.pop(session, None)


def _follow(
    data: bytes, offset: int, end: int, number: int, ids: list[int], flags: int
) -> tuple[int, int]:
    """Go over the PUBLISH frames of one topic that follow in its run, and add their ids.

    Returns:
        Where they end, and all flags of the run together.
    """
    while end - offset >= HEADER_SIZE:
        length, op, more, _, other, _, message_id = unpack_header(data, offset)
        if op != PUBLISH or other != number or not HEADER_SIZE <= length <= end - offset:
            break
        flags |= more
        ids.append(message_id)
        offset += length
    return offset, flags
