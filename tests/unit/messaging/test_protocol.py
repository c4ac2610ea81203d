"""The wire without I/O: frames, and what the server does with them."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rustic_ai.core.errors import ProtocolError
from rustic_ai.core.messaging.backend.embedded_backend.core import Core, Session
from rustic_ai.core.messaging.backend.embedded_backend.protocol import (
    FROM_NOW,
    HEADER,
    HEADER_SIZE,
    MAGIC,
    MAX_NAME,
    VERSION,
    Frame,
    FrameReader,
    Op,
    Query,
    pack,
    pack_names,
    pack_publish,
    unpack_frames,
    unpack_names,
)

HELLO = pack(Op.HELLO, id=MAGIC, n=VERSION)
u16 = st.integers(0, (1 << 16) - 1)
u32 = st.integers(0, (1 << 32) - 1)
u64 = st.integers(0, (1 << 64) - 1)


class Peer:
    """A client of a core, without a socket."""

    def __init__(self, core: Core, *, greet: bool = True) -> None:
        self.core = core
        self.session: Session = core.connected()
        self._reader = FrameReader()
        if greet:
            assert self.send(HELLO)[0].op == Op.HELLO

    def send(self, data: bytes) -> list[Frame]:
        """Send bytes; return what came back."""
        self.core.received(self.session, data)
        return self.take()

    def take(self) -> list[Frame]:
        """Return what has come."""
        data = b"".join(self.session.output)
        self.session.output.clear()
        return list(self._reader.feed(data))

    def topic(self, name: str) -> int:
        """Open a topic."""
        return self.send(pack(Op.TOPIC, pack_names("space", name), n=1))[0].topic


@given(
    st.lists(st.tuples(st.sampled_from(Op), st.binary(max_size=300), u16, u32, u32, u64)), st.data()
)
def test_frames_survive_any_cutting(
    frames: list[tuple[Op, bytes, int, int, int, int]], data: st.DataObject
) -> None:
    """However a stream is cut into pieces, the same frames come out."""
    stream = b"".join(
        pack(op, body, aux=aux, topic=topic, n=n, id=id_) for op, body, aux, topic, n, id_ in frames
    )
    reader, got, start = FrameReader(), [], 0
    while start < len(stream):
        end = data.draw(st.integers(start + 1, len(stream)))
        got += list(reader.feed(stream[start:end]))
        start = end
    assert [(f.op, f.body, f.aux, f.topic, f.n, f.id) for f in got] == frames


@pytest.mark.parametrize("length", [0, HEADER_SIZE - 1, (16 << 20) + 1, (1 << 32) - 1])
def test_impossible_lengths_are_refused_before_the_body(length: int) -> None:
    """A frame that is too short or too large is refused as soon as its header is there."""
    header = HEADER.pack(length, Op.PUBLISH, 0, 0, 0, 0, 0)
    with pytest.raises(ProtocolError, match="a frame of"):
        list(FrameReader().feed(header))


@given(st.lists(st.text(max_size=50), max_size=4), st.binary(max_size=20))
def test_names_survive(names: list[str], rest: bytes) -> None:
    """Names come back as they were, and what follows them too."""
    assert unpack_names(pack_names(*names) + rest, len(names)) == (names, rest)


@pytest.mark.parametrize(
    "body", [b"", b"\x05", b"\x05\x00abc", b"\xff\xff" + b"a" * 70000, b"\x01\x00\xff"]
)
def test_broken_names_are_refused(body: bytes) -> None:
    """A name that is cut off, too long, or no text is refused."""
    with pytest.raises(ProtocolError):
        unpack_names(body, 1)


def test_long_names_are_refused_before_they_are_sent() -> None:
    """A client is told that its topic's name is too long."""
    with pytest.raises(ValueError, match="at most 1024 bytes"):
        pack_names("x" * (MAX_NAME + 1))


def test_nothing_is_done_before_the_greeting() -> None:
    """A stranger, or a client of another version, gets no further."""
    for first in (pack(Op.TOPIC, pack_names("a", "b")), pack(Op.HELLO, id=1, n=VERSION)):
        with pytest.raises(ProtocolError, match="not the greeting"):
            Peer(Core(), greet=False).send(first)
    with pytest.raises(ProtocolError, match="speaks version 99"):
        Peer(Core(), greet=False).send(pack(Op.HELLO, id=MAGIC, n=99))


@pytest.mark.parametrize(
    "frame",
    [
        pack_publish(7, 1, None, b""),
        pack(Op.SUBSCRIBE, pack_names("s"), topic=7, n=1),
        pack(Op.QUERY, topic=7),
        pack(Op.QUERY, aux=99),
        pack(Op.DELIVER),
        pack(Op.QUERY, pack_names("space") + b"123", aux=Query.BY_IDS),
    ],
)
def test_what_makes_no_sense_is_refused(frame: bytes) -> None:
    """Unknown topics, queries and kinds of frame end the session."""
    with pytest.raises(ProtocolError):
        Peer(Core()).send(frame)


def test_frames_are_stored_and_forwarded_as_they_came() -> None:
    """A subscriber gets the publisher's bytes, whatever is in them."""
    core = Core()
    publisher, subscriber = Peer(core), Peer(core)
    topic = publisher.topic("space:t")
    subscriber.send(pack(Op.SUBSCRIBE, pack_names("s"), aux=3, topic=topic, n=10, id=FROM_NOW))
    frames = [pack_publish(topic, n, None, bytes([n]) * n) for n in range(3)]
    (accepted,) = publisher.send(b"".join(frames))
    assert (accepted.op, accepted.id) == (Op.PUBLISHED, 3)
    got = subscriber.take()
    assert [f.raw for f in got if f.op == Op.PUBLISH] == frames
    assert [f.id for f in got if f.op == Op.DELIVER] == [0, 1, 2]
    (rows,) = publisher.send(pack(Op.QUERY, n=5, topic=topic))
    assert [f.raw for f in unpack_frames(rows.body)] == frames


def test_the_window_holds_a_slow_subscriber_back_and_nobody_else() -> None:
    """Only as much is on its way as the window allows; acknowledging brings the rest, in order."""
    core = Core()
    publisher, slow, fast = Peer(core), Peer(core), Peer(core)
    topic = publisher.topic("space:t")
    for peer, window in ((slow, 2), (fast, 100)):
        peer.send(pack(Op.SUBSCRIBE, pack_names("s"), aux=1, topic=topic, n=window, id=FROM_NOW))
    publisher.send(b"".join(pack_publish(topic, n, None, b"") for n in range(5)))
    assert [f.id for f in fast.take() if f.op == Op.PUBLISH] == [0, 1, 2, 3, 4]
    got = [f.id for f in slow.take() if f.op == Op.PUBLISH]
    assert got == [0, 1]
    for position in (1, 3, 5):
        got += [f.id for f in slow.send(pack(Op.ACK, aux=1, id=position)) if f.op == Op.PUBLISH]
    assert got == [0, 1, 2, 3, 4]
    with pytest.raises(ProtocolError, match="before it was delivered"):
        slow.send(pack(Op.ACK, aux=1, id=6))


def test_a_gone_subscriber_costs_nothing() -> None:
    """After a session has ended nothing is kept or sent for it."""
    core = Core()
    publisher, subscriber = Peer(core), Peer(core)
    topic = publisher.topic("space:t")
    subscriber.send(pack(Op.SUBSCRIBE, pack_names("s"), aux=1, topic=topic, n=10, id=FROM_NOW))
    core.disconnected(subscriber.session)
    publisher.send(pack_publish(topic, 1, None, b"x"))
    assert not subscriber.session.output
    assert publisher.session in core.take_dirty()


@given(st.binary(max_size=400), st.integers(0, 1 << 32))
def test_garbage_only_ever_breaks_the_protocol(garbage: bytes, seed: int) -> None:
    """Random bytes, and valid frames with random fields, raise ProtocolError or nothing."""
    core = Core()
    rng = random.Random(seed)
    healthy = Peer(core)
    topic = healthy.topic("space:t")
    fields = [rng.choice([0, 1, 2, 255, 65535]) for _ in range(2)]
    frame = pack(
        rng.choice(list(Op)),
        garbage,
        aux=fields[0],
        topic=fields[1] % 3,
        n=1,
        id=rng.getrandbits(64),
    )
    for data in (garbage, frame):
        stranger = Peer(core)
        try:
            stranger.send(data)
        except ProtocolError:
            core.disconnected(stranger.session)
    assert healthy.send(pack_publish(topic, 1, None, b"fine"))[-1].op in {Op.PUBLISHED, Op.PUBLISH}
