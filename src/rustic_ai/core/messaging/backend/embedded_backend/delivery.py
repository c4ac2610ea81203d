"""How messages move to subscribers: windows, redelivery, gaps. Without any I/O."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from rustic_ai.core.errors import ProtocolError
from rustic_ai.core.messaging.backend.embedded_backend.protocol import (
    DELIVER,
    HANDLED,
    HEADER,
    HEADER_SIZE,
    Op,
    cut_run,
    pack,
)
from rustic_ai.core.messaging.backend.embedded_backend.session import Session
from rustic_ai.core.messaging.backend.embedded_backend.store import Cursor, Topic

OUTPUT_LIMIT = 1 << 20
"""Bytes of a session's output above which nothing more is put on its way."""
_pack: Final = HEADER.pack
_MAX_ATTEMPT: Final = HANDLED - 1


class Delivery:
    """Moves cursors.

    Args:
        dirty: takes note of sessions with output.
        remember: is told of places that have moved and must outlive the server; None: nobody is.
    """

    def __init__(
        self, dirty: dict[Session, None], remember: Callable[[Cursor], None] | None
    ) -> None:
        self._dirty = dirty
        self._remember = remember
        self.moved: dict[Topic, None] = {}
        """Topics with parts in slots of which something was acknowledged."""
        self.stalled: dict[Session, dict[Cursor, None]] = {}
        """Cursors that wait for the output of a session to get shorter."""

    def send(self, session: Session, frame: bytes) -> None:
        """Put a frame into a session's output."""
        session.output.append(frame)
        session.output_size += len(frame)
        self._dirty[session] = None

    # Movement

    def acknowledge(self, cursor: Cursor, position: int) -> None:
        """Note that everything before `position` was handled.

        Raises:
            ProtocolError: it was never delivered.
        """
        if position > cursor.sent:
            raise ProtocolError(summary=f"position {position} acknowledged before it was delivered")
        if position > cursor.acked:
            cursor.acked = position
            cursor.crashes = 0
            if self._remember is not None and cursor.durable:
                self._remember(cursor)
            if cursor.topic.shared:
                self.moved[cursor.topic] = None
        if cursor.sent < cursor.topic.end:
            self.pump(cursor)

    def push(self, topic: Topic, run: bytes, base: int, count: int) -> None:
        """Deliver a run that was just stored to whoever is ready for it."""
        for cursor in topic.cursors:
            session = cursor.session
            if session is None:
                continue
            if (
                cursor.sent == base
                and base - cursor.acked < cursor.window
                and session.output_size < OUTPUT_LIMIT
                and not cursor.gap
            ):  # nearly always; what `_deliver` does
                size = HEADER_SIZE + len(run)
                output = session.output
                output.append(_pack(size, DELIVER, 1, cursor.number, topic.number, count, base))
                output.append(run)
                session.output_size += size
                self._dirty[session] = None
                cursor.sent = base + count
            else:
                self.pump(cursor)

    def _deliver(
        self, cursor: Cursor, session: Session, run: bytes, base: int, count: int, flags: int
    ) -> None:
        size = HEADER_SIZE + len(run)
        header = _pack(size, DELIVER, flags, cursor.number, cursor.topic.number, count, base)
        output = session.output
        output.append(header)
        output.append(run)
        session.output_size += size
        self._dirty[session] = None
        cursor.sent = base + count

    def pump(self, cursor: Cursor) -> None:
        """Deliver what the window of a cursor has room for."""
        session, topic = cursor.session, cursor.topic
        if session is None:
            return
        if cursor.sent < topic.start:  # what it would get next was dropped
            cursor.skipped += topic.start - cursor.sent
            cursor.sent = topic.start
            cursor.acked = max(cursor.acked, topic.start)
            cursor.gap = True
        if cursor.gap and session.output_size < OUTPUT_LIMIT:  # one word for all, when it listens
            cursor.gap = False
            frame = pack(Op.DELIVER, aux=cursor.number, topic=topic.number, id=cursor.sent)
            self.send(session, frame)
        while cursor.sent < topic.end and cursor.sent - cursor.acked < cursor.window:
            if session.output_size >= OUTPUT_LIMIT:
                self.stalled.setdefault(session, {})[cursor] = None
                return
            run, after = topic.run_at(cursor.sent)
            attempt = 1
            if cursor.sent < cursor.seen:
                last = min(after, cursor.seen)
                attempt = 2
                if cursor.sent == cursor.acked and cursor.crashes:
                    # Alone, so that its end, good or bad, can be told from that of the next.
                    last, attempt = cursor.sent + 1, min(cursor.crashes + 1, _MAX_ATTEMPT)
                if last < after:
                    run, after = cut_run(run, 0, last - cursor.sent), last
                cursor.redelivered += after - cursor.sent
            flags = attempt if cursor.sent >= topic.swept else attempt | HANDLED
            self._deliver(cursor, session, run, cursor.sent, after - cursor.sent, flags)

    def go_on(self) -> None:
        """Deliver to those whose output has got shorter."""
        for session in list(self.stalled):
            if session.gone or session.output_size < OUTPUT_LIMIT // 2:
                for cursor in self.stalled.pop(session):
                    self.pump(cursor)
