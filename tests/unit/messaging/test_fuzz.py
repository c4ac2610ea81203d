"""Strangers' bytes in any number against the server's mind.

The suite takes 50,000 streams. `RUSTIC_FUZZ_STREAMS=1000000` takes a million (about a minute of
one core; give pytest `-o faulthandler_timeout=0`), `RUSTIC_FUZZ_SEED` others than every day's.
"""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Callable

import pytest

from rustic_ai.core.errors import ProtocolError
from rustic_ai.core.messaging.backend.embedded_backend.config import Overflow
from rustic_ai.core.messaging.backend.embedded_backend.core import Core
from rustic_ai.core.messaging.backend.embedded_backend.limits import Limits
from rustic_ai.core.messaging.backend.embedded_backend.protocol import (
    FROM_NOW,
    HEADER,
    HEADER_SIZE,
    Op,
    pack,
    pack_names,
)
from rustic_ai.core.messaging.backend.embedded_backend.session import Session
from rustic_ai.core.messaging.backend.embedded_backend.store import Bounds
from rustic_ai.core.messaging.core.attachment import Place, pack_parts
from tests.unit.messaging.shelves import facts, large, slot
from tests.unit.messaging.wire import Peer, ack, hello, ids, message, ops, subscribe

STREAMS = int(os.environ.get("RUSTIC_FUZZ_STREAMS", "50000"))
SEED = os.environ.get("RUSTIC_FUZZ_SEED", "4")
PER_CORE = 4_000
CHECK_EVERY = 50
FRAMES = 8
"""At most so many frames in a stream."""
MAX_FRAME = 4_096
TOPICS = 310
HEALTHY = 300
"""Topic of the healthy pair; strangers hit smaller numbers."""
MODES: tuple[Overflow, ...] = ("block", "error", "drop_oldest")
TOTAL = 32_000
HELD = 1 << 20
"""More bytes than this no stream may make the server hold for its sender."""

NUMBERS = (0, 1, 2, 23, 24, 25, 255, 1024, 65_535, 1 << 31, (1 << 32) - 1, FROM_NOW)
NAMES = ("", "a", "s", "space:t", "space:dead_letters", "ü" * 20, "x" * 1024)
OPS = tuple(int(op) for op in Op)

OFFERED = 0x7F
"""Segment of every stranger that knows how to get a channel."""
NOTHING = memoryview(b"")

Rng = random.Random


def some_number(rng: Rng, bits: int) -> int:
    """Return a small number, or one at a border."""
    if rng.random() < 0.7:
        return rng.randrange(6)
    return rng.choice(NUMBERS) & ((1 << bits) - 1)


def names(rng: Rng) -> bytes:
    """Return a body of names, at times cut off, or with more behind them."""
    body = pack_names(*rng.choices(NAMES, k=rng.randrange(1, 3)))
    what = rng.randrange(5)
    if what == 0:
        return body[: rng.randrange(len(body) + 1)]
    if what == 1:
        return body + rng.randbytes(rng.randrange(20))
    return body


def parts(rng: Rng) -> bytes:
    """Return a body with parts, in slots or not, at times cut off."""
    places = [
        (Place(some_number(rng, 64) or 1, some_number(rng, 32), some_number(rng, 64), 9), NOTHING)
        if rng.random() < 0.7
        else (None, memoryview(bytes(rng.randrange(40))))
        for _ in range(rng.randrange(4))
    ]
    body = pack_parts(bytes(rng.randrange(20)), places)
    return body if rng.random() < 0.8 else body[: rng.randrange(len(body) + 1)]


def in_step(rng: Rng) -> bytes:
    """Return a frame as steps have them, or as they must not."""
    what = rng.random()
    if what < 0.3:
        return ack(rng.randrange(4), some_number(rng, 64))
    if what < 0.95:
        return message(rng.randrange(5), rng.getrandbits(64), bytes(rng.randrange(200)))
    return a_frame(rng)


def a_body(rng: Rng, op: int) -> bytes:
    """Return a body that may suit a frame."""
    what = rng.random()
    if what < 0.1:
        return rng.randbytes(rng.randrange(60))
    if op == Op.STEP:
        body = b"".join(in_step(rng) for _ in range(rng.randrange(5)))
        return body if what < 0.8 else body[: rng.randrange(len(body) + 1)]
    if op == Op.PUBLISH:
        return parts(rng) if rng.random() < 0.3 else bytes(rng.randrange(300))
    if op in {Op.HOLD, Op.UNHOLD}:
        return rng.randbytes(rng.choice((0, 4, 8, 16, rng.randrange(30))))
    if op == Op.QUERY and what < 0.4:
        return pack_names("space") + struct.pack("<20Q", *range(20)) * rng.randrange(3)
    return names(rng)


def a_frame(rng: Rng) -> bytes:
    """Return a frame of any kind, with fields that make sense or none."""
    op = rng.choice(OPS) if rng.random() < 0.97 else rng.randrange(256)
    body = a_body(rng, op)
    length = HEADER_SIZE + len(body)
    if rng.random() < 0.03:
        length = some_number(rng, 32)
    header = HEADER.pack(
        length,
        op,
        rng.randrange(16),
        some_number(rng, 16),
        some_number(rng, 32),
        some_number(rng, 32),
        some_number(rng, 64),
    )
    return header + body


def operations(rng: Rng) -> bytes:
    """Return what a client may send that knows the protocol and means harm."""
    return b"".join(a_frame(rng) for _ in range(rng.randrange(1, FRAMES + 1)))


def sensible(rng: Rng) -> bytes:
    """Return what a client sends that means well."""
    topic, number = rng.randrange(5), rng.randrange(1, 4)
    frames = [
        pack(Op.TOPIC, pack_names("space", "space:t"), n=1),
        subscribe(number, topic, rng.choice("abs"), window=rng.randrange(1, 9), max_attempts=2),
        *(message(topic, rng.getrandbits(60), bytes(rng.randrange(500))) for _ in range(3)),
        ack(number, rng.randrange(4)),
        pack(Op.STEP, in_step(rng)),
        pack(Op.QUERY, aux=rng.randrange(3), topic=topic, n=1),
        large(topic, rng.getrandbits(60), (slot(rng.randrange(3), OFFERED), 1)),
        pack(rng.choice((Op.HOLD, Op.UNHOLD)), id=slot(rng.randrange(3), OFFERED)),
    ]
    return b"".join(frames)


def damaged(rng: Rng) -> bytes:
    """Return the same with some bytes changed, lost, or twice."""
    data = bytearray(sensible(rng))
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(data))
        what = rng.randrange(4)
        if what == 0:
            data[at] = rng.randrange(256)
        elif what == 1:
            data[at] ^= 1 << rng.randrange(8)
        elif what == 2:
            del data[at : at + rng.randrange(40)]
        else:
            data[at:at] = data[at : at + rng.randrange(40)]
        if not data:
            break
    return bytes(data)


def noise(rng: Rng) -> bytes:
    """Return bytes without any sense."""
    return rng.randbytes(rng.randrange(200))


KINDS: tuple[Callable[[Rng], bytes], ...] = (noise, damaged, operations, operations, sensible)


class Target:
    """A core, a healthy pair of clients, and strangers one after the other."""

    def __init__(self, mode: Overflow) -> None:
        bounds = Bounds(
            topic_bytes=8_000, topic_count=60, total_bytes=TOTAL, pending=4_000, overflow=mode
        )
        limits = Limits(max_frame=MAX_FRAME, topics=TOPICS, subscriptions=4, producers=100)
        self.core = Core(bounds, limits, token=b"t" * 32)
        self.publisher = Peer(self.core, 1 << 62)
        self.subscriber = Peer(self.core, (1 << 62) + 1)
        while (topic := self.publisher.topic(f"h:{len(self.core.store.topics)}")) < HEALTHY:
            pass
        self.topic = topic
        self.subscriber.send(subscribe(1, topic, "healthy"))
        self.sent = 0

    def check(self, now: float) -> None:
        """See a message go through; and that strangers have left nothing behind."""
        self.sent += 1
        self.core.tick(now)
        answers = self.publisher.publish(self.topic, self.sent)
        assert ops(answers)[-1] == Op.PUBLISHED
        assert ids(self.subscriber.take())[-1] == self.sent
        end = self.core.store.topics[self.topic].end
        assert self.subscriber.send(ack(1, end)) == []
        assert len(self.core.store.topics) <= TOPICS
        assert self.core.store.total <= TOTAL + 100 * MAX_FRAME
        assert facts(self.core)[2] == 0, "no stranger holds anything"
        for topic in self.core.store.topics:
            assert not topic.waiting
            assert all(c.session in {None, self.subscriber.session} for c in topic.cursors)
            assert topic.start <= topic.end
            assert topic.size == sum(map(len, topic.runs))

    def attack(self, rng: Rng, stream: bytes, client: int) -> bool:
        """Send a stream on a connection of its own; returns whether it broke the protocol."""
        self.core.book.channel_opened(client)
        self.core.book.offered(client, OFFERED)
        session = self.core.connected("a stranger", trusted=rng.random() < 0.9)
        cuts = sorted(rng.randrange(len(stream) + 1) for _ in range(rng.randrange(3)))
        broke = False
        try:
            for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
                self.core.received(session, stream[start:end])
                if session.ended:
                    break
        except ProtocolError:
            broke = True
        assert held_for(session) <= HELD
        assert len(session.buffer) <= len(stream)
        session.output.clear()
        self.core.disconnected(session)
        for evicted in self.core.evicted:
            assert evicted not in {self.publisher.session, self.subscriber.session}
        self.core.evicted.clear()
        assert not session.cursors
        assert not session.parked
        self.core.book.channel_closed(client)
        return broke


def held_for(session: Session) -> int:
    """Return about how many bytes a server holds for a session."""
    parked = sum(len(run) for batch in session.parked for _, run, *_ in batch.runs)
    return parked + len(session.buffer) + sum(map(len, session.output))


@pytest.mark.timeout(30 + STREAMS // 1_000)
def test_no_stream_of_bytes_harms_the_server_or_others() -> None:
    """Whatever comes raises ProtocolError or nothing, costs little, and leaves others in peace."""
    broken = [0] * len(KINDS)
    target = Target("block")
    for index in range(STREAMS):
        rng = random.Random(f"{SEED}:{index}")
        if index % PER_CORE == 0:
            target = Target(MODES[index // PER_CORE % len(MODES)])
        kind = rng.randrange(len(KINDS))
        stream = KINDS[kind](rng)
        client = rng.randrange(4)
        if rng.random() < 0.9:
            stream = hello(client) + stream
        try:
            broken[kind] += target.attack(rng, stream, client)
            if index % CHECK_EVERY == 0:
                target.check(index / 100)
        except BaseException as e:
            e.add_note(f"RUSTIC_FUZZ_SEED={SEED}, stream {index}: {stream.hex()}")
            raise
    share = STREAMS / len(KINDS)
    assert all(broken), "every kind finds something to refuse"
    assert broken[-1] < share / 2, "and what means well mostly gets through"
