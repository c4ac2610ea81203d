"""A producer's slots: used again when they are free and not before; within their limit."""

from __future__ import annotations

import contextlib
import gc
import os
import threading
from collections import deque
from pathlib import Path
from typing import Any

import psutil
import pytest

from rustic_ai.core.messaging.backend.embedded_backend.shared.loans import Loans
from rustic_ai.core.messaging.backend.embedded_backend.shared.pool import SMALLEST, Pool
from rustic_ai.core.messaging.backend.embedded_backend.shared.seals import SUPPORTED, sealed_size
from rustic_ai.core.messaging.backend.embedded_backend.shared.segment import (
    Mapping,
    address_of,
    make_segment,
)
from rustic_ai.core.messaging.core.attachment import LostPart, Place

pytestmark = pytest.mark.skipif(not SUPPORTED, reason="needs memory files")
MB = 1 << 20
LIMIT = 32 * MB


def open_descriptors() -> int:
    """Return how many this process has."""
    return psutil.Process().num_fds()


class Bench:
    """A pool, and what it says of segments that are gone."""

    def __init__(self, limit: int = LIMIT) -> None:
        self.dropped: deque[int] = deque()
        self.pool = Pool(limit, self.dropped)

    def acquire(self, size: int) -> Any:
        """Return a block; there is room."""
        block = self.pool.acquire(size)
        assert block is not None
        return block

    def send(self, block: Any) -> tuple[int, int]:
        """Send what lies in a block; returns slot and use."""
        place, segment = self.pool.place(block, 0, len(block))
        segment.offered = True
        self.pool.sent(place.slot, place.use)
        return place.slot, place.use


@pytest.fixture
def bench() -> Any:
    """Give a pool, closed afterwards."""
    made = Bench()
    yield made
    made.pool.close()


def test_a_block_has_the_size_that_was_asked_for(bench: Bench) -> None:
    """Slots are larger, blocks are not; the bytes are there to be written and read."""
    for size in (SMALLEST, SMALLEST + 1, MB - 1, 5 * MB + 7):
        block = bench.acquire(size)
        assert len(block) == size
        view = memoryview(block).cast("B")
        view[0] = view[size - 1] = 7
        assert bytes(view[-1:]) == b"\x07"
    assert bench.pool.total <= LIMIT


def test_a_slot_is_used_again_when_block_and_messages_are_gone(bench: Bench) -> None:
    """Whichever ends last; in between it is nobody else's."""
    block = bench.acquire(MB)
    address = address_of(block)
    slot, use = bench.send(block)
    bench.pool.released(slot, use)
    assert bench.pool.in_use == 1, "the block is there"
    other_use = bench.send(block)[1]
    assert other_use != use
    del block
    assert bench.pool.in_use == 1, "a message is there"
    bench.pool.released(slot, use)
    assert bench.pool.in_use == 1, "another message is there"
    other = bench.acquire(MB)
    assert address_of(other) != address
    bench.pool.released(slot, other_use)
    assert bench.pool.in_use == 1, "the other one"
    assert address_of(bench.acquire(MB)) == address


def test_what_refers_to_a_block_keeps_it(bench: Bench) -> None:
    """Views of views, too, and cycles until they are collected."""
    view = memoryview(bench.acquire(MB)).cast("B")[5:9].toreadonly()
    assert bench.pool.in_use == 1
    cycle: list[Any] = [view]
    cycle.append(cycle)
    del view, cycle
    gc.collect()
    assert bench.pool.in_use == 0


def test_a_larger_slot_is_taken_but_not_a_huge_one(bench: Bench) -> None:
    """Up to twice the size."""
    address = address_of(bench.acquire(4 * MB))
    assert address_of(bench.acquire(3 * MB)) == address
    total = bench.pool.total
    bench.acquire(MB)
    assert bench.pool.total > total


def test_there_is_a_limit(bench: Bench) -> None:
    """Beyond it there is no block; idle segments of other sizes make room, busy ones do not."""
    blocks = [bench.acquire(8 * MB) for _ in range(4)]
    assert bench.pool.acquire(MB) is None
    assert not bench.pool.has(MB)
    del blocks[0]
    assert bench.pool.has(MB)
    total = bench.pool.total
    assert bench.pool.acquire(16 * MB) is None
    assert bench.pool.total == total, "nothing was given up for what finds no room all the same"
    blocks.append(bench.acquire(MB))
    assert bench.pool.total <= LIMIT
    assert bench.pool.acquire(LIMIT + 1) is None


def test_a_small_limit_is_of_use() -> None:
    """Even where it is smaller than what small slots share."""
    bench = Bench(2 * SMALLEST)
    blocks = [bench.acquire(SMALLEST), bench.acquire(SMALLEST)]
    assert bench.pool.acquire(SMALLEST) is None
    blocks.clear()
    bench.pool.close()


def test_segments_go_when_their_owner_is_asked(bench: Bench) -> None:
    """At once, or when the last slot is free; their numbers are told if the server has them."""
    block = bench.acquire(MB)
    segment = block.slot.segment.id
    slot, use = bench.send(block)
    del block
    bench.pool.retire(segment)
    assert not bench.dropped
    bench.pool.released(slot, use)
    assert list(bench.dropped) == [segment]
    assert (bench.pool.total, bench.pool.in_use) == (0, 0)
    bench.pool.retire(segment)


def test_a_segment_that_is_gone_is_not_mapped_any_more(bench: Bench) -> None:
    """At once, and not when the garbage collector comes around."""
    gc.disable()
    try:
        segment = bench.acquire(MB).slot.segment.id
        name = f"memfd:rustic-{segment:x}"
        assert name in Path("/proc/self/maps").read_text()
        bench.pool.retire(segment)
        assert name not in Path("/proc/self/maps").read_text()
        segment = bench.acquire(MB).slot.segment.id
        bench.pool.close()
        assert f"memfd:rustic-{segment:x}" not in Path("/proc/self/maps").read_text()
    finally:
        gc.enable()


def test_what_was_there_with_another_server_is_not_filled_again(bench: Bench) -> None:
    """Receivers of the old one may look at it, and the new one does not know."""
    block, idle = bench.acquire(8 * MB), bench.acquire(MB)
    address = address_of(block)
    slot, use = bench.send(block)
    del block, idle
    bench.pool.abandon()
    assert bench.pool.uses() == [(slot, use)]
    needed = bench.pool.take_back_offers()
    bench.pool.released(slot, use)
    assert bench.pool.total, "it is being offered"
    assert address_of(bench.acquire(8 * MB)) != address
    bench.pool.let_go(needed)
    assert bench.pool.total == 8 * MB, "only what was made since"


def test_after_its_end_there_is_nothing(bench: Bench) -> None:
    """What is still looked at stays; no descriptor does."""
    block = bench.acquire(MB)
    descriptors = open_descriptors()
    bench.pool.close()
    assert open_descriptors() == descriptors - 1
    assert bench.pool.acquire(MB) is None
    memoryview(block).cast("B")[0] = 1


def test_no_memory_or_descriptor_leaves_nothing_behind(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error rises, for the part to go another way; the next one finds room again."""

    def fail(*_: object) -> int:
        raise OSError(12, "no memory")

    descriptors = open_descriptors()
    for name in ("memfd_create", "ftruncate"):
        with monkeypatch.context() as patch, pytest.raises(OSError, match="no memory"):
            patch.setattr(os, name, fail)
            bench.pool.acquire(MB)
    assert (bench.pool.total, bench.pool.in_use) == (0, 0)
    assert open_descriptors() == descriptors
    assert bench.pool.acquire(MB) is not None


def test_many_threads(bench: Bench) -> None:
    """No two have the same slot at the same time, and all come back."""
    wrong: list[int] = []

    def work(number: int) -> None:
        for _ in range(300):
            block = bench.pool.acquire(MB)
            if block is None:
                continue
            view = memoryview(block).cast("B")
            view[0] = number
            slot, use = bench.send(block)
            del block
            if view[0] != number:
                wrong.append(number)
            view.release()
            bench.pool.released(slot, use)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert bench.pool.in_use == 0
    assert not bench.pool.uses()


# Receivers


def test_nobody_but_its_maker_writes_a_segment() -> None:
    """Sealed: no writing, no shrinking, no growing; and that is seen of others that are not."""
    fd, mapping = make_segment("rustic-test", MB)
    assert sealed_size(fd) == mapping.size == MB
    for size in (0, 2 * MB):
        with pytest.raises(PermissionError):
            os.ftruncate(fd, size)
    with pytest.raises(PermissionError):
        os.write(fd, b"x")
    with pytest.raises(OSError, match="cannot be mapped"):
        Mapping(fd, MB, writable=True)
    os.close(fd)
    with contextlib.closing(os.fdopen(os.memfd_create("rustic-test"), "wb")) as unsealed:
        assert sealed_size(unsealed.fileno()) is None
    with Path("/dev/null").open("rb") as other:
        assert sealed_size(other.fileno()) is None


def test_loans() -> None:
    """A part is mapped once, to read; the server hears of those that stay, and of their end."""
    fd, _ = make_segment("rustic-test", MB)
    asked: list[int] = []

    def want(number: int) -> int | None:
        asked.append(number)
        return os.dup(fd) if number == 1 else None

    loans = Loans()
    parts = [loans.borrow(Place(1 << 16 | n, 1, n, MB // 2), want) for n in range(2)]
    assert asked == [1]
    part = parts[0]
    assert isinstance(part, memoryview)
    assert part.readonly
    for place in (Place(2 << 16, 1, 0, 9), Place(1 << 16, 1, MB - 1, 2)):
        assert isinstance(loans.borrow(place, want), LostPart)
    empty = loans.borrow(Place(1 << 16, 1, 0, 0), want)
    assert isinstance(empty, memoryview)
    assert bytes(empty) == b""
    assert len(loans.news(at_rest=False)) == 2 * 24
    assert loans.news(at_rest=False) == b""
    parts.clear()
    assert loans.has_news
    assert len(loans.news(at_rest=False)) == 24
    loans.forget(1)
    assert bytes(part[:1]) == b"\0", "it is mapped as long as it is looked at"
    loans.start_over(same_server=True)
    assert len(loans.news(at_rest=False)) == 24, "said again"
    assert len(loans.news(at_rest=True)) == 24 + 8, "and that it is all"
    assert not loans.has_news
    ended: list[bool] = []
    loans.close(lambda: ended.append(True))
    assert ended == []
    del part
    assert ended == [True]
    os.close(fd)
