"""The server's book of slots: which messages need them, and who looks at them. Without any I/O."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from rustic_ai.core.errors import ProtocolError
from rustic_ai.core.messaging.backend.embedded_backend.protocol import (
    SEGMENT_SHIFT,
    Frame,
    Op,
    pack,
)
from rustic_ai.core.messaging.backend.embedded_backend.session import Session
from rustic_ai.core.messaging.backend.embedded_backend.shared.mentions import mentioned_in
from rustic_ai.core.messaging.backend.embedded_backend.store import Topic
from rustic_ai.core.messaging.core.attachment import Place
from rustic_ai.core.messaging.core.dead_letter import DEAD_LETTER_TOPIC

MAX_SEGMENTS = 1024
"""Of one client; each costs the server a descriptor."""
IDLE = 30.0
"""Seconds after which a segment that nobody needs should go."""
OWNERS_COME_BACK = 5.0
"""Seconds after a server's start in which owners of what its journal remembers may come back."""
SUBSCRIBERS_COME_BACK = 2.0
"""Seconds in which all subscribers of a topic may come back, after the first client of a server
before this one: longer than the longest pause between two of their attempts."""
_SLOT = struct.Struct("<Q")
BOOKED = (Op.FORGET, Op.RELEASED, Op.HOLD, Op.UNHOLD)
"""What `Book.obey` obeys."""


@dataclass(slots=True, eq=False)
class SlotUse:
    """A slot that somebody needs."""

    id: int
    segment: SharedSegment
    uses: set[int] = field(default_factory=set)
    """Those that its owner waits to hear of; what lies there is the same in all of them."""
    messages: int = 0
    """How many stored or waiting messages need it."""
    holders: set[int] = field(default_factory=set)
    """Clients that look at it."""


@dataclass(slots=True, eq=False)
class SharedSegment:
    """A client's segment."""

    id: int
    owner: int
    """0: its client is gone, or has not come back since the server was started again."""
    here: bool = False
    """Whether the server has its descriptor."""
    busy: int = 0
    """How many of its slots somebody needs."""
    idle_since: float = 0.0
    asked_to_retire: bool = False
    readers: set[int] = field(default_factory=set)
    """Clients that have mapped it."""


class Book:
    """Counts; tells owners what is free again, readers what is gone.

    Args:
        session_of: returns the session of a client, by its number.
        send: puts a frame into a session's output.
        moved: topics of which something was acknowledged, taken off by `sweep`.
        swept: is told of topics whose slots are let go of, before their owners are.
    """

    def __init__(
        self,
        session_of: Callable[[int], Session | None],
        send: Callable[[Session, bytes], None],
        moved: dict[Topic, None],
        swept: Callable[[Topic], None],
    ) -> None:
        self._session_of = session_of
        self._send = send
        self._segments: dict[int, SharedSegment] = {}
        self._slots: dict[int, SlotUse] = {}
        self._of_client: dict[int, set[int]] = {}
        self._topics: dict[Topic, None] = {}
        self._moved = moved
        self._swept = swept
        self._awaited: dict[Topic, tuple[int, float]] = {}
        """Topics whose subscribers may come back, from what position on nothing is let go for them,
        and since when; 0: since now."""
        self._channels: set[int] = set()
        self._owners_may_come = False
        self._waiting_since = 0.0
        self.close: Callable[[int], object] = lambda _: None
        """Is told of segments whose descriptors are not needed any more; set by who has them."""

    # Messages

    def check(self, client: int, run: bytes) -> None:
        """Make sure of the segments that a run of a client's needs.

        Raises:
            ProtocolError: the client has not offered one, or the run cannot be read.
        """
        for _, places in mentioned_in(run):
            for place in places:
                number = place.slot >> SEGMENT_SHIFT
                segment = self._segments.get(number)
                if segment is None or segment.owner != client:
                    raise ProtocolError(
                        summary=f"a part in segment {number:x}, which was never offered"
                    )

    def stored(self, topic: Topic, run: bytes, base: int) -> None:
        """Take note of a run that was stored, at a position."""
        for index, places in mentioned_in(run):
            if base + index >= topic.swept:
                topic.shared.append((base + index, [self._use(place) for place in places]))
        self._topics[topic] = self._moved[topic] = None

    def restored(self, topic: Topic, run: bytes, base: int) -> None:
        """Take note of a run that a journal remembers, whose owner may come back.

        What had been let go of stays so: its slots may have been filled again.
        """
        self.stored(topic, run, base)
        self._owners_may_come = True

    def retain(self, run: bytes) -> list[SlotUse]:
        """Take note of a run that waits for room; returns what `release` gives back."""
        return [self._use(place) for _, places in mentioned_in(run) for place in places]

    def release(self, slots: Iterable[SlotUse]) -> None:
        """Take note that messages do not need these any more."""
        for slot in slots:
            slot.messages -= 1
            self._free_if_unused(slot)

    def _use(self, place: Place) -> SlotUse:
        number = place.slot >> SEGMENT_SHIFT
        segment = self._segments.get(number)
        if segment is None:  # the journal remembers it
            segment = self._segments[number] = SharedSegment(number, 0)
        slot = self._slots.get(place.slot)
        if slot is None:
            slot = self._slots[place.slot] = SlotUse(place.slot, segment)
            segment.busy += 1
        slot.uses.add(place.use)
        slot.messages += 1
        return slot

    def sweep(self) -> None:
        """Let go of what was acknowledged since the last call."""
        topics = list(self._moved)
        self._moved.clear()
        for topic in topics:
            floor = topic.floor
            if topic.name.endswith(f":{DEAD_LETTER_TOPIC}"):  # these are kept, for a replay
                floor = min(floor, topic.start)
            if topic in self._awaited:
                floor = min(floor, self._awaited[topic][0])
            if floor > topic.swept:
                topic.swept = floor
                self._swept(topic)
            while topic.shared and topic.shared[0][0] < floor:
                self.release(topic.shared.popleft()[1])
            if not topic.shared:
                self._topics.pop(topic, None)

    def awaits(self, topic: Topic) -> None:
        """Take note that a client of a server before this one comes back to a topic.

        Others may, too, and want what is stored from now on, though nobody seems to need it. What a
        journal remembers may have been let go, and its slots been filled again.
        """
        self._awaited.setdefault(topic, (topic.end, 0.0))

    # Clients

    def obey(self, session: Session, frame: Frame) -> None:
        """Do what a client says of slots and segments."""
        assert session.producer is not None
        client = session.producer.client
        slot = self._slots.get(frame.id)
        match frame.op:
            case Op.FORGET:
                segment = self._segments.get(frame.id)
                if segment is not None and segment.owner == client:
                    self._disown(segment)
            case Op.RELEASED:  # a question, after a connection was lost
                if slot is None or frame.n not in slot.uses:
                    self._send(session, pack(Op.RELEASED, id=frame.id, n=frame.n))
            case Op.HOLD:
                wanted = int.from_bytes(frame.body, "little") if frame.body else None
                granted = slot is not None and (wanted is None or wanted in slot.uses)
                if slot is not None and granted:
                    slot.holders.add(client)
                if wanted is not None:
                    answer = pack(Op.HOLD, n=frame.n, aux=granted, id=frame.id)
                    self._send(session, answer)
            case Op.UNHOLD if frame.id:
                if slot is not None:
                    self._let_go(slot, client)
            case Op.UNHOLD:
                self._let_go_of_all_but(client, frame.body)

    def _let_go(self, slot: SlotUse, client: int) -> None:
        slot.holders.discard(client)
        self._free_if_unused(slot)

    def _let_go_of_all_but(self, client: int, body: bytes) -> None:
        """Take a client's word what it looks at, after what it said before may have been lost."""
        if len(body) % _SLOT.size:
            raise ProtocolError(summary=f"slots in {len(body)} bytes")
        kept = {number for (number,) in _SLOT.iter_unpack(body)}
        for slot in list(self._slots.values()):
            if slot.id in kept:
                slot.holders.add(client)
            elif client in slot.holders:
                self._let_go(slot, client)

    def offered(self, client: int, number: int) -> bool:
        """Take note of a segment whose descriptor came; False where we have it already.

        Raises:
            ProtocolError: it is another client's.
        """
        segment = self._segments.get(number)
        if segment is None:
            segment = self._segments[number] = SharedSegment(number, client)
        if segment.owner not in {0, client}:
            raise ProtocolError(summary=f"segment {number:x} is another client's")
        self._of_client.setdefault(client, set()).add(number)
        segment.owner = client
        had, segment.here = segment.here, True
        return not had

    def has_room(self, client: int, number: int) -> bool:
        """Say whether a client may offer a segment, beside those that it has."""
        ours = self._of_client.get(client, set())
        return number in ours or len(ours) < MAX_SEGMENTS

    def read_by(self, client: int, number: int) -> bool:
        """Take note that a client maps a segment; False where there is none."""
        segment = self._segments.get(number)
        if segment is None or not segment.here:
            return False
        segment.readers.add(client)
        return True

    def may_come(self, number: int) -> bool:
        """Say whether the owner of a segment that is not here may still bring it."""
        segment = self._segments.get(number)
        return self._owners_may_come and segment is not None and not segment.here

    def channel_opened(self, client: int) -> None:
        """Take note that a client has a channel."""
        self._channels.add(client)

    def channel_closed(self, client: int) -> None:
        """Take note that it has none any more."""
        self._channels.discard(client)
        if self._session_of(client) is None:
            self._gone(client)

    def session_lost(self, session: Session) -> None:
        """Take note that a session ends, before its places are given up.

        As long as its process lives, which its channel shows, that may look at all that it had
        got, whoever has its places meanwhile.
        """
        if session.producer is None:
            return
        client = session.producer.client
        if client not in self._channels:
            self._gone(client)
        elif session.said_goodbye:
            self._disown_all(client)
        else:
            for cursor in session.cursors.values():
                for position, slots in cursor.topic.shared:
                    if cursor.acked <= position < cursor.sent:
                        for slot in slots:
                            slot.holders.add(client)

    def _gone(self, client: int) -> None:
        """A client's process has ended: it looks at nothing any more."""
        self._disown_all(client)
        for slot in list(self._slots.values()):
            if client in slot.holders:
                self._let_go(slot, client)
        for segment in self._segments.values():
            segment.readers.discard(client)

    def _disown_all(self, client: int) -> None:
        for number in self._of_client.pop(client, set()):
            segment = self._segments.get(number)
            if segment is not None:
                self._disown(segment)

    def _disown(self, segment: SharedSegment) -> None:
        self._of_client.get(segment.owner, set()).discard(segment.id)
        segment.owner = 0
        self._close_if_unused(segment)

    def _free_if_unused(self, slot: SlotUse) -> None:
        if slot.messages or slot.holders or self._slots.get(slot.id) is not slot:
            return
        segment = slot.segment
        del self._slots[slot.id]
        segment.busy -= 1
        segment.idle_since = 0.0
        owner = self._session_of(segment.owner) if segment.owner else None
        if owner is not None:
            for use in slot.uses:
                self._send(owner, pack(Op.RELEASED, id=slot.id, n=use))
        self._close_if_unused(segment)

    def _close_if_unused(self, segment: SharedSegment) -> None:
        if segment.owner or segment.busy:
            return
        del self._segments[segment.id]
        if segment.here:
            self.close(segment.id)
        for client in segment.readers:
            session = self._session_of(client)
            if session is not None:
                self._send(session, pack(Op.FORGET, id=segment.id))

    # Time

    def tick(self, now: float) -> None:
        """Sweep all topics with parts, and ask owners to give up what was idle for long."""
        for topic, (position, since) in list(self._awaited.items()):
            if not since:
                self._awaited[topic] = position, now
            elif now - since >= SUBSCRIBERS_COME_BACK:
                del self._awaited[topic]
        self._moved.update(self._topics)
        if self._owners_may_come:
            self._waiting_since = self._waiting_since or now
            self._owners_may_come = now - self._waiting_since < OWNERS_COME_BACK
        for segment in self._segments.values():
            if segment.busy or not segment.owner:
                continue
            if not segment.idle_since:
                segment.idle_since, segment.asked_to_retire = now, False
            elif now - segment.idle_since > IDLE and not segment.asked_to_retire:
                segment.asked_to_retire = True
                owner = self._session_of(segment.owner)
                if owner is not None:
                    self._send(owner, pack(Op.RETIRE, id=segment.id))

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to look after."""
        return not (self._segments or self._awaited)

    def statistics(self) -> dict[str, int]:
        """Return how many segments and slots there are."""
        return {
            "segments": len(self._segments),
            "slots_in_use": len(self._slots),
            "held_slots": sum(bool(slot.holders) for slot in self._slots.values()),
        }
