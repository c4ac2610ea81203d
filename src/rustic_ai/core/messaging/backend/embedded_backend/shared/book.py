"""The server's book of slots: which messages need them, and who looks at them. Without any I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from rustic_ai.core.errors import ProtocolError
from rustic_ai.core.messaging.backend.embedded_backend.protocol import (
    DEAD,
    SEGMENT_SHIFT,
    SHARED,
    Frame,
    Op,
    messages_in,
    pack,
)
from rustic_ai.core.messaging.backend.embedded_backend.session import Session
from rustic_ai.core.messaging.backend.embedded_backend.store import Topic
from rustic_ai.core.messaging.core.attachment import Place, unpack_places
from rustic_ai.core.messaging.core.dead_letter import DEAD_LETTER_TOPIC, note_size

MAX_SEGMENTS = 1024
"""Of one client; each costs the server a descriptor."""
IDLE = 30.0
"""Seconds after which a segment that nobody needs should go."""
BOOKED = (Op.FORGET, Op.RELEASED, Op.HOLD, Op.UNHOLD)
"""What `Book.obey` obeys."""


@dataclass(slots=True, eq=False)
class SlotUse:
    """A slot that somebody needs."""

    id: int
    segment: SharedSegment
    use: int = 0
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
    """

    def __init__(
        self,
        session_of: Callable[[int], Session | None],
        send: Callable[[Session, bytes], None],
        moved: dict[Topic, None],
    ) -> None:
        self._session_of = session_of
        self._send = send
        self._segments: dict[int, SharedSegment] = {}
        self._slots: dict[int, SlotUse] = {}
        self._of_client: dict[int, set[int]] = {}
        self._topics: dict[Topic, None] = {}
        self._moved = moved
        self.closed: list[int] = []
        """Segments whose descriptors are not needed any more."""
        self.look: Callable[[int], object] = lambda _: None
        """Reads what a client has sent on its channel; set by who does the I/O."""

    # Messages

    def check(self, client: int, run: bytes) -> None:
        """Make sure of the segments that a run of a client's needs.

        Raises:
            ProtocolError: the client has not offered one, or the run cannot be read.
        """
        for _, places in _places_in(run):
            for place in places:
                number = place.slot >> SEGMENT_SHIFT
                segment = self._segments.get(number)
                if segment is None or not segment.here:
                    self.look(client)  # its descriptor was sent before the message
                    segment = self._segments.get(number)
                if segment is None or segment.owner != client:
                    raise ProtocolError(
                        summary=f"a part in segment {number:x}, which was never offered"
                    )

    def stored(self, topic: Topic, run: bytes, base: int) -> None:
        """Take note of a run that was stored, at a position."""
        for index, places in _places_in(run):
            topic.shared.append((base + index, [self._use(place) for place in places]))
        self._topics[topic] = self._moved[topic] = None

    def retain(self, run: bytes) -> list[SlotUse]:
        """Take note of a run that waits for room; returns what `release` gives back."""
        return [self._use(place) for _, places in _places_in(run) for place in places]

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
        slot.use = place.use
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
            while topic.shared and topic.shared[0][0] < floor:
                self.release(topic.shared.popleft()[1])
            if not topic.shared:
                self._topics.pop(topic, None)

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
                if slot is None or slot.use != frame.n:
                    self._send(session, pack(Op.RELEASED, id=frame.id, n=frame.n))
            case Op.HOLD:
                wanted = int.from_bytes(frame.body, "little") if frame.body else None
                granted = slot is not None and wanted in {None, slot.use}
                if slot is not None and granted:
                    slot.holders.add(client)
                if wanted is not None:
                    answer = pack(Op.HOLD, n=frame.n, aux=granted, id=frame.id)
                    self._send(session, answer)
            case Op.UNHOLD:
                if slot is not None:
                    slot.holders.discard(client)
                    self._free_if_unused(slot)

    def offered(self, client: int, number: int) -> bool:
        """Take note of a segment whose descriptor came; False where we have it already.

        Raises:
            ProtocolError: it is another client's, or the client has too many.
        """
        segment = self._segments.get(number)
        if segment is None:
            segment = self._segments[number] = SharedSegment(number, client)
        if segment.owner not in {0, client}:
            raise ProtocolError(summary=f"segment {number:x} is another client's")
        ours = self._of_client.setdefault(client, set())
        if len(ours) >= MAX_SEGMENTS:
            raise ProtocolError(summary=f"one more segment than {MAX_SEGMENTS}")
        ours.add(number)
        segment.owner = client
        had, segment.here = segment.here, True
        return not had

    def read_by(self, client: int, number: int) -> bool:
        """Take note that a client maps a segment; False where there is none."""
        segment = self._segments.get(number)
        if segment is None or not segment.here:
            return False
        segment.readers.add(client)
        return True

    def gone(self, client: int) -> None:
        """Take note that a client's channel has ended: its process looks at nothing any more."""
        for number in self._of_client.pop(client, set()):
            segment = self._segments.get(number)
            if segment is not None:
                self._disown(segment)
        for slot in list(self._slots.values()):
            if client in slot.holders:
                slot.holders.discard(client)
                self._free_if_unused(slot)
        for segment in self._segments.values():
            segment.readers.discard(client)

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
            self._send(owner, pack(Op.RELEASED, id=slot.id, n=slot.use))
        self._close_if_unused(segment)

    def _close_if_unused(self, segment: SharedSegment) -> None:
        if segment.owner or segment.busy:
            return
        del self._segments[segment.id]
        if segment.here:
            self.closed.append(segment.id)
        for client in segment.readers:
            session = self._session_of(client)
            if session is not None:
                self._send(session, pack(Op.FORGET, id=segment.id))

    # Time

    def tick(self, now: float) -> None:
        """Sweep all topics with parts, and ask owners to give up what was idle for long."""
        self._moved.update(self._topics)
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
        return not self._segments

    def statistics(self) -> dict[str, int]:
        """Return how many segments and slots there are."""
        return {
            "segments": len(self._segments),
            "slots_in_use": len(self._slots),
            "held_slots": sum(bool(slot.holders) for slot in self._slots.values()),
        }


def _places_in(run: bytes) -> Iterator[tuple[int, list[Place]]]:
    """Yield for each message of a run that has some: its number there, and places in slots."""
    for index, stored in enumerate(messages_in(run)):
        if not stored.flags & SHARED:
            continue
        start = stored.start
        if stored.flags & DEAD:
            start += note_size(run, start)
        places, _, end = unpack_places(run, start)
        if end > stored.end:
            raise ProtocolError(summary="an envelope that reaches beyond its frame")
        yield index, [place for place in places if place.slot]
