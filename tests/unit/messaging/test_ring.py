"""A ring of bytes: order, bounds, and a writer that is not to be trusted."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rustic_ai.core.errors import ProtocolError
from rustic_ai.core.messaging.backend.embedded_backend.shared import ring

pytestmark = pytest.mark.skipif(not ring.SUPPORTED, reason="needs memory files, and x86")
SIZE = 256 << 10


@pytest.fixture
def fd() -> Iterator[int]:
    """Give the descriptor of a new segment."""
    fd = ring.RingWriter.make()
    yield fd
    os.close(fd)


@pytest.fixture
def ends(fd: int) -> Iterator[tuple[ring.RingWriter, ring.RingReader]]:
    """Give both ends; the reader looks."""
    assert ring.RingReader.fits(fd)
    writer, reader = ring.RingWriter(fd), ring.RingReader(fd)
    reader.watch(looks=True)
    yield writer, reader
    writer.close()
    reader.close()


@given(st.lists(st.one_of(st.integers(1, SIZE + 10), st.none()), max_size=40))
@settings(max_examples=200, deadline=None)
def test_what_is_written_is_read(moves: list[int | None]) -> None:
    """In order and whole, around its end, and no more than fits."""
    fd = ring.RingWriter.make()
    writer, reader = ring.RingWriter(fd), ring.RingReader(fd)
    os.close(fd)
    reader.watch(looks=True)
    waiting = b""
    for count, size in enumerate(moves):
        if size is None:
            assert reader.take() == waiting
            waiting = b""
            continue
        data = count.to_bytes(1, "little") * size
        fits = len(waiting) + size <= SIZE
        assert writer.put(data) is fits
        waiting += data if fits else b""
    assert reader.take() == waiting
    writer.close()
    reader.close()


def test_nobody_looks(ends: tuple[ring.RingWriter, ring.RingReader]) -> None:
    """Nothing is written where nobody looks, and what was written before has to be told of."""
    writer, reader = ends
    reader.watch(looks=False)
    assert not writer.put(b"abc")
    assert not writer.unseen
    reader.watch(looks=True)
    assert writer.put(b"abc")
    assert not writer.unseen
    reader.watch(looks=False)
    assert writer.unseen
    assert reader.take() == b"abc"


def test_only_what_was_there_at_a_time(ends: tuple[ring.RingWriter, ring.RingReader]) -> None:
    """The rest comes later; what was taken meanwhile does not come again."""
    writer, reader = ends
    writer.put(b"first")
    then = reader.written()
    writer.put(b"second")
    assert reader.take(then) == b"first"
    assert reader.take(then) == b""
    assert reader.take() == b"second"
    assert reader.take(then) == b""


@pytest.mark.parametrize("written", [SIZE + 4, (1 << 64) - 1, 1])
def test_cells_that_say_what_cannot_be(
    fd: int, ends: tuple[ring.RingWriter, ring.RingReader], written: int
) -> None:
    """The reader does not follow them."""
    writer, reader = ends
    writer.put(b"abc")
    assert reader.take() == b"abc"
    with mmap.mmap(fd, mmap.PAGESIZE) as cells:
        cells[:8] = written.to_bytes(8, "little")
    with pytest.raises(ProtocolError, match="ring"):
        reader.take()


def test_what_is_no_ring() -> None:
    """A file that could shrink, or has another size, is none."""
    for size, flags in ((SIZE, os.MFD_ALLOW_SEALING), (4096, 0)):
        fd = os.memfd_create("rustic-test", flags)
        os.ftruncate(fd, size)
        assert not ring.RingReader.fits(fd)
        os.close(fd)
