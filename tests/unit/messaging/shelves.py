"""Messages with parts in slots, for clients of a `Core` without sockets."""

from __future__ import annotations

from rustic_ai.core.messaging.backend.embedded_backend.core import Core
from rustic_ai.core.messaging.backend.embedded_backend.protocol import (
    ACK_NOW,
    SEGMENT_SHIFT,
    SHARED,
    Frame,
    Op,
    pack,
)
from rustic_ai.core.messaging.core.attachment import Place, pack_parts
from tests.unit.messaging.wire import Peer, message, subscribe

SEGMENT = 0x77


def slot(index: int = 0, segment: int = SEGMENT) -> int:
    """Return the number of a slot."""
    return segment << SEGMENT_SHIFT | index


def large(topic: int, message_id: int, *uses: tuple[int, int], flags: int = ACK_NOW) -> bytes:
    """Return a message with parts in slots: number and use of each."""
    places = [(Place(number, use, 0, 1 << 17), memoryview(b"")) for number, use in uses]
    return message(topic, message_id, pack_parts(b"e", places), flags | SHARED)


def released(frames: list[Frame]) -> list[tuple[int, int]]:
    """Return the slots and uses that are released among frames."""
    return [(frame.id, frame.n) for frame in frames if frame.op == Op.RELEASED]


def hold(number: int) -> bytes:
    """Return the word that a slot is looked at."""
    return pack(Op.HOLD, id=number)


def unhold(number: int) -> bytes:
    """Return the word that it is not, any more."""
    return pack(Op.UNHOLD, id=number)


def may_hold(peer: Peer, number: int, use: int) -> bool:
    """Ask whether a slot may be looked at."""
    (answer,) = peer.send(pack(Op.HOLD, use.to_bytes(4, "little"), n=5, id=number))
    assert (answer.op, answer.n, answer.id) == (Op.HOLD, 5, number)
    return bool(answer.aux)


class Owner(Peer):
    """A client with a channel, and segments that it has offered.

    Args:
        core: the core.
        segments: their numbers.
        client: its own; None: a new one.
    """

    def __init__(self, core: Core, *segments: int, client: int | None = None) -> None:
        super().__init__(core, client)
        core.book.channel_opened(self.client)
        for segment in segments:
            core.book.offered(self.client, segment)

    def hear(self) -> list[tuple[int, int]]:
        """Let a second pass; return what is released."""
        self.core.tick(self.core._next_look)
        self.core.take_dirty()
        return released(self.take())

    def die(self) -> None:
        """End as a process does that is killed: both connections."""
        self.lose()
        self.core.book.channel_closed(self.client)


def facts(core: Core) -> tuple[int, int, int]:
    """Return how many segments, slots in use, and held slots there are."""
    found = core.book.statistics()
    return found["segments"], found["slots_in_use"], found["held_slots"]


def make(
    core: Core | None = None, *, durable: int = 1, window: int = 100
) -> tuple[Core, Owner, Owner, int]:
    """Return a core, an owner of a segment, a subscriber, and the number of their topic."""
    core = core or Core()
    owner, reader = Owner(core, SEGMENT), Owner(core)
    topic = owner.topic()
    reader.send(subscribe(1, topic, flags=durable, window=window))
    return core, owner, reader, topic
