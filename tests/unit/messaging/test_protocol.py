"""The wire without I/O: frames, names, runs, and how a stream is cut into them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rustic_ai.core.errors import ProtocolError
from rustic_ai.core.messaging.backend.embedded_backend.protocol import (
    DEAD,
    HEADER,
    HEADER_SIZE,
    MAX_NAME,
    FrameReader,
    Op,
    Stored,
    cut_run,
    in_ms,
    messages_in,
    pack,
    pack_names,
    pack_publish,
    unpack_names,
)

u8 = st.integers(0, (1 << 8) - 1)
u16 = st.integers(0, (1 << 16) - 1)
u32 = st.integers(0, (1 << 32) - 1)
u64 = st.integers(0, (1 << 64) - 1)
LIMIT = 400


@given(
    st.lists(
        st.tuples(st.sampled_from(Op), st.binary(max_size=300), u8, u16, u32, u32, u64), max_size=8
    ),
    st.data(),
)
def test_frames_survive_any_cutting(
    frames: list[tuple[Op, bytes, int, int, int, int, int]], data: st.DataObject
) -> None:
    """However a stream is cut into pieces, the same frames come out."""
    stream = b"".join(
        pack(op, body, flags=flags, aux=aux, topic=topic, n=n, id=id_)
        for op, body, flags, aux, topic, n, id_ in frames
    )
    reader, got, start = FrameReader(LIMIT), [], 0
    while start < len(stream):
        end = data.draw(st.integers(start + 1, len(stream)))
        got += reader.feed(stream[start:end])
        start = end
    assert [(f.op, f.body, f.flags, f.aux, f.topic, f.n, f.id) for f in got] == frames
    assert b"".join(f.raw for f in got) == stream


def test_byte_by_byte_is_a_cutting_too() -> None:
    """A frame comes out with its last byte, neither earlier nor later."""
    frame, reader = pack(Op.ACK, b"body", id=5), FrameReader(LIMIT)
    got = [len(reader.feed(bytes([byte]))) for byte in frame * 2]
    assert got == ([0] * (len(frame) - 1) + [1]) * 2


@pytest.mark.parametrize("length", [0, HEADER_SIZE - 1, LIMIT + 1, (1 << 32) - 1])
@pytest.mark.parametrize("before", [b"", pack(Op.ACK)])
def test_impossible_lengths_are_refused_before_the_body(length: int, before: bytes) -> None:
    """A frame that is too short or too large is refused as soon as its header is there."""
    header = HEADER.pack(length, Op.PUBLISH, 0, 0, 0, 0, 0)
    reader = FrameReader(LIMIT)
    assert len(reader.feed(before + header[:-1])) == bool(before)
    with pytest.raises(ProtocolError, match=r"a frame of .* \(allowed: 24 to 400\)"):
        reader.feed(header[-1:])


@pytest.mark.parametrize("length", [HEADER_SIZE, LIMIT])
def test_the_limits_themselves_are_allowed(length: int) -> None:
    """A frame of exactly the least and the largest size is taken."""
    (frame,) = FrameReader(LIMIT).feed(pack(Op.PUBLISH, bytes(length - HEADER_SIZE)))
    assert len(frame.raw) == length


@given(st.lists(st.text(max_size=50), max_size=4), st.binary(max_size=20))
def test_names_survive(names: list[str], rest: bytes) -> None:
    """Names come back as they were, and what follows them too."""
    assert unpack_names(pack_names(*names) + rest, len(names)) == (names, rest)


@pytest.mark.parametrize(
    "body", [b"", b"\x05", b"\x05\x00abc", b"\xff\xff" + b"a" * 70000, b"\x01\x00\xff"]
)
def test_broken_names_are_refused(body: bytes) -> None:
    """A name that is missing, cut off, too long, or no text is refused."""
    with pytest.raises(ProtocolError, match="a name"):
        unpack_names(body, 1)


def test_long_names_are_refused_before_they_are_sent() -> None:
    """A client is told that its topic's name is too long; bytes count, not letters."""
    with pytest.raises(ValueError, match=r"at most 1024 bytes.*has 1026"):
        pack_names("ü" * (MAX_NAME // 2 + 1))
    assert unpack_names(pack_names("x" * MAX_NAME), 1)[0] == ["x" * MAX_NAME]


@pytest.mark.parametrize(
    ("ttl", "ms"),
    [(0, 1), (1e-9, 1), (1.5, 1500), (4294967.295, (1 << 32) - 1), (5e6, 0)],
)
def test_a_time_to_live_is_in_milliseconds(ttl: float, ms: int) -> None:
    """50 days mean for ever; the shortest is a millisecond, as 0 means for ever."""
    (stored,) = messages_in(pack_publish(3, 9, b"abc", in_ms(ttl), DEAD))
    assert stored == Stored(DEAD, 3, ms, 9, HEADER_SIZE, HEADER_SIZE + 3)


@given(st.lists(st.tuples(u64, st.binary(max_size=40)), max_size=10), st.data())
def test_a_run_is_cut_between_messages(
    messages: list[tuple[int, bytes]], data: st.DataObject
) -> None:
    """Any part of a run is a run of just these messages, byte for byte."""
    frames = [pack_publish(1, id_, body) for id_, body in messages]
    run = b"".join(frames)
    first = data.draw(st.integers(0, len(frames)))
    last = data.draw(st.integers(first, len(frames)))
    assert cut_run(run, first, last) == b"".join(frames[first:last])
    ahead = data.draw(st.binary(max_size=30))
    got = [(s.id, (ahead + run)[s.start : s.end]) for s in messages_in(ahead + run, len(ahead))]
    assert got == messages


@pytest.mark.parametrize(
    "tail",
    [
        b"x",
        pack_publish(1, 2, b"")[:-1],
        pack_publish(1, 2, b"body")[:-1],
        HEADER.pack(HEADER_SIZE - 1, Op.PUBLISH, 0, 0, 1, 0, 2),
        HEADER.pack(0, Op.PUBLISH, 0, 0, 1, 0, 2),
        pack(Op.STEP),
    ],
)
def test_a_run_with_anything_else_is_refused(tail: bytes) -> None:
    """What is cut off, has an impossible length, or is no message is no run, and ends."""
    good = pack_publish(1, 1, b"good")
    messages = messages_in(good + tail)
    assert next(messages).id == 1
    with pytest.raises(ProtocolError, match="a run of messages"):
        next(messages)
