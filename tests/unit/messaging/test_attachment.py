"""Bodies with parts: what is put in comes out, and nothing else is taken for one."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rustic_ai.core.errors import ProtocolError
from rustic_ai.core.messaging.backend.embedded_backend.protocol import SHARED, pack_publish
from rustic_ai.core.messaging.backend.embedded_backend.shared.mentions import (
    mentioned_by,
    mentioned_in,
)
from rustic_ai.core.messaging.core.attachment import (
    MARK,
    Place,
    pack_inline,
    pack_parts,
    unpack_places,
)

u64 = st.integers(1, (1 << 64) - 1)
places = st.builds(Place, u64, st.integers(0, (1 << 32) - 1), u64, u64)
parts = st.lists(st.one_of(places, st.binary(max_size=100)), max_size=6)


@given(st.binary(max_size=80), parts, st.binary(max_size=20))
def test_what_is_put_in_comes_out(
    envelope: bytes, given_parts: list[Place | bytes], before: bytes
) -> None:
    """Envelope, parts and places are the same again, wherever the body begins."""
    body = pack_parts(
        envelope,
        [
            (part, memoryview(b"")) if isinstance(part, Place) else (None, memoryview(part))
            for part in given_parts
        ],
    )
    found, start, end = unpack_places(before + body, len(before))
    assert (before + body)[start:end] == envelope
    for part, place in zip(given_parts, found, strict=True):
        if isinstance(part, Place):
            assert place == part
        else:
            assert body[place.offset : place.offset + place.size] == part
            assert place.offset % 16 == 0


@given(st.binary(min_size=1, max_size=40), st.lists(st.binary(min_size=1, max_size=40), max_size=3))
def test_whatever_is_cut_off_is_an_error(envelope: bytes, given_parts: list[bytes]) -> None:
    """Each shorter piece of a body is refused."""
    body = pack_inline(envelope, [memoryview(part) for part in given_parts])
    for size in range(len(body)):
        with pytest.raises(ProtocolError):
            unpack_places(body[:size])


@given(st.binary(max_size=200), st.booleans())
def test_strange_bytes_are_an_error_or_lie_within(data: bytes, marked: bool) -> None:
    """No other error rises, and no part of a body reaches beyond it."""
    body = struct.pack("<BB", MARK, 1) + data if marked else data
    try:
        found, start, end = unpack_places(body)
    except ProtocolError:
        return
    assert 0 <= start <= end <= len(body)
    assert all(place.slot or place.offset + place.size <= len(body) for place in found)


@given(st.binary(max_size=200))
def test_a_run_of_strange_bodies_is_an_error_or_nothing(data: bytes) -> None:
    """The same for messages that say that they have parts in slots."""
    run = pack_publish(1, 2, data, flags=SHARED)
    try:
        assert list(mentioned_in(run)) is not None
        assert mentioned_by(run) is not None
    except ProtocolError:
        pass
