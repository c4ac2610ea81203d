"""A producer's segments: cut into slots, filled, sent, and filled again when nobody needs them.

First touch of new memory costs ten times as much as writing to memory that was touched before, so
slots are kept. They come in sizes of four to a doubling; small ones share a segment.
"""

from __future__ import annotations

import os
import secrets
import threading
import weakref
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from rustic_ai.core.forking import guard_forks
from rustic_ai.core.messaging.backend.embedded_backend.protocol import SEGMENT_SHIFT
from rustic_ai.core.messaging.backend.embedded_backend.shared.segment import (
    Mapping,
    address_of,
    block_in,
    make_segment,
)
from rustic_ai.core.messaging.core.attachment import Place

SMALLEST = 128 << 10
"""Bytes below which a part is sent with its message: copying is as fast as the bookkeeping."""
_SEGMENT = 8 << 20
"""Small slots share a segment of about this size."""
_LARGER = 2
"""A slot may be so many times as large as what it is used for."""


@dataclass(slots=True, eq=False)
class Slot:
    """A piece of a segment that holds one part at a time."""

    id: int
    segment: Segment
    offset: int
    size: int
    use: int = 0
    """For the how-manieth time it is sent."""
    uses: set[int] = field(default_factory=set)
    """Those that messages need which were sent, as far as we know."""
    blocks: int = 0
    """How many blocks of this process lie in it."""


@dataclass(slots=True, eq=False)
class Segment:
    """One memory file of this producer."""

    id: int
    fd: int
    mapping: Mapping
    slots: list[Slot] = field(default_factory=list)
    busy: int = 0
    """How many of its slots are not free."""
    offered: bool = False
    """Whether the server has its descriptor."""
    retiring: bool = False
    """Whether it goes as soon as it is free."""


class Pool:
    """Slots of one client. Safe from any thread.

    Args:
        limit: bytes of all segments together.
        dropped: is told the number of each segment that is given back to the system.
    """

    def __init__(self, limit: int, dropped: deque[int]) -> None:
        self._limit = limit
        self._dropped = dropped
        self._lock = threading.Lock()
        self._segments: dict[int, Segment] = {}
        self._slots: dict[int, Slot] = {}
        self._free: dict[int, list[Slot]] = {}
        self._total = 0
        self._closed = False
        self._ended: deque[Slot] = deque()
        """Slots of which a block of ours has ended, as told by the garbage collector."""
        self._watched: dict[int, weakref.ref[Any]] = {}
        self._blocks: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()
        """Blocks of this process by their address."""
        guard_forks(self)

    @property
    def total(self) -> int:
        """Bytes of all segments."""
        return self._total

    @property
    def in_use(self) -> int:
        """How many slots are not free."""
        with self._lock:
            self._collect()
            return sum(segment.busy for segment in self._segments.values())

    def acquire(self, size: int) -> Any | None:
        """Return a block of `size` bytes in a free slot; None where there is no room.

        Raises:
            OSError: the system has no memory, or no descriptor left.
        """
        with self._lock:
            self._collect()
            slot = self._take(_rounded(size)) if not self._closed else None
            if slot is None:
                return None
            slot.segment.busy += 1
            return self._new_block(slot, size)

    def has(self, size: int) -> bool:
        """Say whether `acquire` would find room."""
        rounded = _rounded(size)
        with self._lock:
            self._collect()
            if any(self._free.get(each) for each in self._sizes_for(rounded)):
                return True
            idle = sum(s.mapping.size for s in self._segments.values() if not s.busy)
            return self._total - idle + self._segment_size(rounded)[0] <= self._limit

    def place(self, block: Any, start: int, size: int) -> tuple[Place, Segment]:
        """Return where a part in a block lies, for one message; keep the block until it is sent."""
        slot: Slot = block.slot
        with self._lock:
            slot.use = slot.use % 0xFFFF_FFFF + 1
            offset = address_of(block) + start - slot.segment.mapping.address
            return Place(slot.id, slot.use, offset, size), slot.segment

    def sent(self, slot_id: int, use: int) -> None:
        """Note that a message is sent now that needs this use of a slot."""
        with self._lock:
            slot = self._slots.get(slot_id)
            if slot is not None:
                slot.uses.add(use)

    def block_at(self, address: int, size: int) -> Any | None:
        """Return the block that these bytes of this process lie in; None where there is none."""
        with self._lock:
            for segment in self._segments.values():
                begin = segment.mapping.address
                if begin <= address < begin + segment.mapping.size:
                    for slot in segment.slots:
                        at = begin + slot.offset
                        if at <= address and address + size <= at + slot.size:
                            return self._blocks.get(at)
        return None

    def released(self, slot_id: int, use: int) -> None:
        """Take the server's word that nobody needs this use of a slot any more."""
        with self._lock:
            slot = self._slots.get(slot_id)
            if slot is not None and use in slot.uses:
                slot.uses.discard(use)
                self._free_if_unused(slot)

    def retire(self, segment_id: int) -> None:
        """Give a segment back to the system as soon as it is free."""
        with self._lock:
            self._collect()
            segment = self._segments.get(segment_id)
            if segment is not None:
                self._retire(segment)

    def abandon(self) -> None:
        """Fill no slot again that is there now."""
        with self._lock:
            self._collect()
            for segment in list(self._segments.values()):
                segment.offered = False
                self._retire(segment)

    def take_back_offers(self) -> list[Segment]:
        """Note that no segment is offered any more; returns those that messages may need.

        They stay until they are given to `let_go`.
        """
        with self._lock:
            self._collect()
            for segment in self._segments.values():
                segment.offered = False
            needed = [segment for segment in self._segments.values() if segment.busy]
            for segment in needed:
                segment.busy += 1
            return needed

    def let_go(self, segments: list[Segment]) -> None:
        """Note that these have been offered again."""
        with self._lock:
            for segment in segments:
                segment.busy -= 1
                if segment.retiring and not segment.busy and segment.id in self._segments:
                    self._drop(segment)

    def uses(self) -> list[tuple[int, int]]:
        """Return the slots that messages may need which were sent, and which use of them."""
        with self._lock:
            return [(slot.id, use) for slot in self._slots.values() for use in slot.uses]

    def close(self) -> None:
        """Give everything back to the system; what blocks refer to stays as long as they do."""
        with self._lock:
            self._closed = True
            self._ended.clear()
            for segment in self._segments.values():
                os.close(segment.fd)
                segment.slots.clear()
            self._segments.clear()
            self._slots.clear()
            self._free.clear()
            self._total = 0

    def close_in_fork(self) -> None:
        """Close the descriptors of a forked copy."""
        self._closed = True
        for segment in self._segments.values():
            os.close(segment.fd)
        self._segments = {}

    # Under the lock

    def _take(self, size: int) -> Slot | None:
        for each in self._sizes_for(size):
            if self._free.get(each):
                return self._free[each].pop()  # the one used last is the one in the caches
        wanted, count = self._segment_size(size)
        idle = [segment for segment in self._segments.values() if not segment.busy]
        if self._total - sum(s.mapping.size for s in idle) + wanted > self._limit:
            return None
        while self._total + wanted > self._limit:
            self._drop(idle.pop(0))
        self._grow(size, wanted, count)
        return self._free[size].pop()

    def _segment_size(self, size: int) -> tuple[int, int]:
        """Return the size of a segment for slots of a size, and how many of them it has."""
        count = max(1, min(_SEGMENT, self._limit) // size)
        return size * count, count

    def _sizes_for(self, size: int) -> list[int]:
        return sorted(each for each in self._free if size <= each <= size * _LARGER)

    def _grow(self, size: int, wanted: int, count: int) -> None:
        number = secrets.randbits(64 - SEGMENT_SHIFT - 1) | 1
        fd, mapping = make_segment(f"rustic-{number:x}", wanted)
        segment = self._segments[number] = Segment(number, fd, mapping)
        self._total += wanted
        for index in reversed(range(count)):
            slot = Slot(number << SEGMENT_SHIFT | index, segment, index * size, size)
            segment.slots.append(slot)
            self._slots[slot.id] = slot
            self._free.setdefault(size, []).append(slot)

    def _new_block(self, slot: Slot, size: int) -> Any:
        block = block_in(slot.segment.mapping, slot.offset, size)
        block.slot = slot
        slot.blocks += 1
        ended, watched, key = self._ended, self._watched, id(block)

        def end(_: object) -> None:  # may run on any thread, in the middle of anything
            watched.pop(key, None)
            if not self._closed:
                ended.append(slot)

        watched[key] = weakref.ref(block, end)
        self._blocks[address_of(block)] = block
        return block

    def _collect(self) -> None:
        while self._ended:
            slot = self._ended.popleft()
            slot.blocks -= 1
            self._free_if_unused(slot)

    def _free_if_unused(self, slot: Slot) -> None:
        segment = slot.segment
        if slot.uses or slot.blocks or segment.id not in self._segments:
            return
        segment.busy -= 1
        if not segment.retiring:
            self._free.setdefault(slot.size, []).append(slot)
        elif not segment.busy:
            self._drop(segment)

    def _retire(self, segment: Segment) -> None:
        segment.retiring = True
        for slot in segment.slots:
            if slot in self._free.get(slot.size, ()):
                self._free[slot.size].remove(slot)
        if not segment.busy:
            self._drop(segment)

    def _drop(self, segment: Segment) -> None:
        del self._segments[segment.id]
        self._total -= segment.mapping.size
        os.close(segment.fd)
        for slot in segment.slots:
            del self._slots[slot.id]
            if slot in self._free.get(slot.size, ()):
                self._free[slot.size].remove(slot)
        segment.slots.clear()  # they refer to it: its memory would stay until they are collected
        if segment.offered:
            self._dropped.append(segment.id)


def _rounded(size: int) -> int:
    """Return the size of the slot for so many bytes: whole pages, four sizes to a doubling."""
    step = max(4096, (1 << (size - 1).bit_length()) // 8)
    return max(SMALLEST, -(-size // step) * step)
