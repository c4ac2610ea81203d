"""The server's mind: what a frame of a client does, without any I/O.

The payload of a message is never looked into, nor its envelope.
"""

from __future__ import annotations

import json
import struct
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from rustic_ai.core.errors import ProtocolError
from rustic_ai.core.messaging.backend.embedded_backend.protocol import (
    FROM_NOW,
    MAGIC,
    MAX_FRAME,
    VERSION,
    Frame,
    FrameReader,
    Op,
    Query,
    pack,
    unpack_names,
)
from rustic_ai.core.messaging.backend.embedded_backend.store import CHUNK, Store, Topic


@dataclass(slots=True, eq=False)
class Subscription:
    """One subscriber's place in one topic: a cursor, and a window of credit."""

    session: Session
    number: int
    topic: Topic
    subscriber: str
    window: int
    sent: int
    acked: int


@dataclass(slots=True, eq=False)
class Session:
    """One client's connection as the core sees it; `output` waits to be sent."""

    reader: FrameReader
    greeted: bool = False
    ended: bool = False
    published: int = 0
    told: int = 0
    output: deque[bytes] = field(default_factory=deque)
    subscriptions: dict[int, Subscription] = field(default_factory=dict)


class Core:
    """Applies frames to topics and subscriptions; says which sessions have output.

    Args:
        max_frame: largest frame that clients may send, in bytes.
    """

    def __init__(self, max_frame: int = MAX_FRAME) -> None:
        self.max_frame = max_frame
        self.store = Store()
        self._subscriptions: dict[int, list[Subscription]] = {}
        self._dirty: dict[Session, None] = {}

    def connected(self) -> Session:
        """Begin a session."""
        return Session(FrameReader(self.max_frame))

    def disconnected(self, session: Session) -> None:
        """End a session; its subscriptions end with it."""
        for subscription in list(session.subscriptions.values()):
            self._unsubscribe(subscription)
        self._dirty.pop(session, None)

    def received(self, session: Session, data: bytes) -> None:
        """Apply what a client sent.

        Raises:
            ProtocolError: it broke the protocol; the session must end.
        """
        for frame in session.reader.feed(data):
            if frame.op == Op.PUBLISH and session.greeted:
                self._publish(session, frame)
            else:
                self._control(session, frame)
            if session.ended:
                return
        if session.published > session.told:
            session.told = session.published
            self._send(session, pack(Op.PUBLISHED, id=session.published))

    def take_dirty(self) -> list[Session]:
        """Return the sessions that got output since the last call."""
        dirty = list(self._dirty)
        self._dirty.clear()
        return dirty

    def _send(self, session: Session, *frames: bytes) -> None:
        session.output.extend(frames)
        self._dirty[session] = None

    def _control(self, session: Session, frame: Frame) -> None:
        if not session.greeted:
            self._greet(session, frame)
            return
        match frame.op:
            case Op.TOPIC:
                (namespace, name), _ = unpack_names(frame.body, 2)
                topic = self.store.open_topic(namespace, name)
                self._send(session, pack(Op.TOPIC, n=frame.n, topic=topic.number))
            case Op.SUBSCRIBE:
                self._subscribe(session, frame)
            case Op.UNSUBSCRIBE:
                subscription = session.subscriptions.get(frame.aux)
                if subscription is not None:
                    self._unsubscribe(subscription)
                self._send(session, pack(Op.UNSUBSCRIBE, aux=frame.aux))
            case Op.ACK:
                self._acknowledge(session, frame)
            case Op.QUERY:
                self._answer(session, frame)
            case Op.GOODBYE:
                session.ended = True
            case _:
                raise ProtocolError(summary=f"a frame of unknown kind {frame.op}")

    def _greet(self, session: Session, frame: Frame) -> None:
        if frame.op != Op.HELLO or frame.id != MAGIC:
            raise ProtocolError(summary="the first frame is not the greeting of a client")
        if frame.n != VERSION:
            raise ProtocolError(
                summary=f"the client speaks version {frame.n} of the protocol, the server {VERSION}"
            )
        session.greeted = True
        self._send(session, pack(Op.HELLO, id=MAGIC, n=self.max_frame))

    def _known_topic(self, frame: Frame) -> Topic:
        topic = self.store.topic(frame.topic)
        if topic is None:
            raise ProtocolError(summary=f"topic number {frame.topic} was never given")
        return topic

    def _publish(self, session: Session, frame: Frame) -> None:
        topic = self._known_topic(frame)
        topic.append(frame.id, frame.raw)
        session.published += 1
        for subscription in self._subscriptions.get(topic.number, ()):
            self._pump(subscription)

    def _subscribe(self, session: Session, frame: Frame) -> None:
        topic = self._known_topic(frame)
        if frame.aux in session.subscriptions or not frame.n:
            raise ProtocolError(summary=f"subscription {frame.aux} exists, or has no window")
        (subscriber,), _ = unpack_names(frame.body, 1)
        start = topic.end if frame.id == FROM_NOW else min(frame.id, topic.end)
        subscription = Subscription(session, frame.aux, topic, subscriber, frame.n, start, start)
        session.subscriptions[frame.aux] = subscription
        self._subscriptions.setdefault(topic.number, []).append(subscription)
        self._send(session, pack(Op.SUBSCRIBE, aux=frame.aux, topic=topic.number, id=start))
        self._pump(subscription)

    def _unsubscribe(self, subscription: Subscription) -> None:
        del subscription.session.subscriptions[subscription.number]
        self._subscriptions[subscription.topic.number].remove(subscription)

    def _acknowledge(self, session: Session, frame: Frame) -> None:
        subscription = session.subscriptions.get(frame.aux)
        if subscription is None:
            return  # crossed our answer to its UNSUBSCRIBE
        if frame.id > subscription.sent:
            raise ProtocolError(summary=f"position {frame.id} acknowledged before it was delivered")
        subscription.acked = max(subscription.acked, frame.id)
        self._pump(subscription)

    def _pump(self, subscription: Subscription) -> None:
        """Deliver what the window of a subscription has room for."""
        topic = subscription.topic
        while subscription.sent < topic.end:
            room = subscription.acked + subscription.window - subscription.sent
            if room <= 0:
                return
            frames, position = topic.chunk(subscription.sent, room)
            header = pack(
                Op.DELIVER,
                aux=subscription.number,
                topic=topic.number,
                n=len(frames),
                id=subscription.sent,
            )
            self._send(subscription.session, header, *frames)
            subscription.sent = position

    def _answer(self, session: Session, frame: Frame) -> None:
        match frame.aux:
            case Query.FROM_POSITION:
                self._send_history(session, frame, frame.id, FROM_NOW)
            case Query.SINCE_ID:
                self._send_history(
                    session, frame, self._known_topic(frame).after(frame.id), FROM_NOW
                )
            case Query.NEXT_AFTER_ID:
                self._send_history(session, frame, self._known_topic(frame).after(frame.id), 1)
            case Query.BY_IDS:
                self._send_by_ids(session, frame)
            case Query.SUBSCRIBERS:
                (namespace,), _ = unpack_names(frame.body, 1)
                text = json.dumps(self._subscribers(namespace)).encode()
                self._send(session, pack(Op.ROWS, text, n=frame.n))
            case _:
                raise ProtocolError(summary=f"a query of unknown kind {frame.aux}")

    def _send_history(self, session: Session, frame: Frame, start: int, most: int) -> None:
        topic = self._known_topic(frame)
        frames, position = topic.chunk(min(start, topic.end), most)
        more = most > 1 and position < topic.end
        self._send(session, pack(Op.ROWS, b"".join(frames), n=frame.n, aux=more, id=position))

    def _send_by_ids(self, session: Session, frame: Frame) -> None:
        (namespace,), rest = unpack_names(frame.body, 1)
        if len(rest) % 8:
            raise ProtocolError(summary="a list of ids that is cut off")
        ids = struct.unpack(f"<{len(rest) // 8}Q", rest)
        self._send_rows(session, frame.n, self.store.find(namespace, ids))

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
        for subscriptions in self._subscriptions.values():
            for subscription in subscriptions:
                if subscription.topic.name.startswith(f"{namespace}:"):
                    found.setdefault(subscription.topic.name, []).append(subscription.subscriber)
        return {name: sorted(subscribers) for name, subscribers in found.items()}
