"""What a receiver has got of other clients' segments, and still looks at."""

from __future__ import annotations

import contextlib
import os
import struct
import threading
import weakref
from collections import Counter, deque
from collections.abc import Callable, Iterator
from typing import Any

from rustic_ai.core.messaging.backend.embedded_backend.protocol import (
    SEGMENT_SHIFT,
    Op,
    pack,
)
from rustic_ai.core.messaging.backend.embedded_backend.shared.segment import Mapping, block_in
from rustic_ai.core.messaging.core.attachment import LostPart, Part, Place


class Loans:
    """Mapped segments, and how many parts in which slots are in use. Safe from any thread.

    A part may be used until its message is acknowledged; the server is told before that of those
    that are used for longer, and when that is over.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._mapped: dict[int, Mapping] = {}
        self._forgotten = 0
        """How many times something was; what was asked for before that is not kept."""
        self._lent: Counter[int] = Counter()
        self._held: set[int] = set()
        """Slots that the server knows of."""
        self._unsure = False
        """Whether it may know of others, too."""
        self._ended: deque[int] = deque()
        """Slots of which a part has ended, as told by the garbage collector."""
        self._watched: set[int] = set()
        self._afterwards: Callable[[], None] | None = None

    def borrow(self, place: Place, want: Callable[[int], int | None]) -> Part:
        """Return a part.

        Args:
            place: where it lies.
            want: returns the descriptor of a segment, from the server; None: there is none.

        Raises:
            OSError: it cannot be mapped.
        """
        mapping = self._map(place.slot >> SEGMENT_SHIFT, want)
        if mapping is None:
            return LostPart("nobody needed its memory any more")
        if place.offset + place.size > mapping.size:
            return LostPart("it would reach beyond its segment")
        if not place.size:
            return memoryview(b"")
        with self._lock:
            self._collect()
            block = block_in(mapping, place.offset, place.size)
            self._watch(block, place.slot)
        return memoryview(block).toreadonly().cast("B")

    @contextlib.contextmanager
    def expecting(self, slot: int) -> Iterator[None]:
        """Count a slot as looked at, while the server is asked whether it may be."""
        with self._lock:
            self._lent[slot] += 1
        try:
            yield
        finally:
            self._ended.append(slot)

    def held(self, slot: int) -> None:
        """Take note that the server knows that a slot is looked at."""
        with self._lock:
            self._held.add(slot)

    def _map(self, segment: int, want: Callable[[int], int | None]) -> Mapping | None:
        with self._lock:
            mapping, asked_at = self._mapped.get(segment), self._forgotten
        if mapping is not None:
            return mapping
        fd = want(segment)  # not under the lock, which whoever reads what the server says may need
        if fd is None:
            return None
        try:
            mapping = Mapping(fd, os.fstat(fd).st_size, writable=False)
        finally:
            os.close(fd)
        with self._lock:
            if self._forgotten == asked_at:
                mapping = self._mapped.setdefault(segment, mapping)
        return mapping

    def _watch(self, block: Any, slot: int) -> None:
        key = id(block)
        # Not a reference of ours: one that goes in the same cycle as its block is never called.
        watch = weakref.finalize(block, self._end, key, slot)
        watch.atexit = False
        self._watched.add(key)
        self._lent[slot] += 1

    def _end(self, key: int, slot: int) -> None:
        # May run on any thread, in the middle of anything.
        self._watched.discard(key)
        self._ended.append(slot)
        if self._afterwards is not None and not self._watched:
            self._afterwards()

    def _collect(self) -> None:
        while self._ended:
            slot = self._ended.popleft()
            self._lent[slot] -= 1
            if not self._lent[slot]:
                del self._lent[slot]

    @property
    def any_held(self) -> bool:
        """Whether the server waits for the end of some."""
        return bool(self._held)

    @property
    def has_news(self) -> bool:
        """Whether there may be something that the server must hear."""
        return bool(self._ended) or self._unsure or self._lent.keys() != self._held

    def news(self, *, at_rest: bool) -> bytes:
        """Return what the server must hear before anything more is acknowledged.

        Args:
            at_rest: whether no message is in hand or waits to be.
        """
        with self._lock:
            self._collect()
            new, over = self._lent.keys() - self._held, self._held - self._lent.keys()
            self._held = set(self._lent)
            if self._unsure and at_rest:
                self._unsure = False
                slots = struct.pack(f"<{len(self._held)}Q", *self._held)
                return pack(Op.UNHOLD, slots)
        return b"".join(
            [pack(Op.HOLD, id=slot) for slot in new] + [pack(Op.UNHOLD, id=slot) for slot in over]
        )

    def close(self, afterwards: Callable[[], None]) -> None:
        """Keep only what is in use; call `afterwards` as soon as nothing is any more."""
        with self._lock:
            self._forgotten += 1
            self._mapped.clear()
        self._afterwards = afterwards
        if not self._watched:
            afterwards()

    def forget(self, segment: int) -> None:
        """Take the word that a segment is not used any more; parts of it keep it mapped."""
        with self._lock:
            self._forgotten += 1
            self._mapped.pop(segment, None)

    def start_over(self, *, same_server: bool) -> None:
        """Take note that what the server was told may be lost.

        The same one keeps what was on its way to us, until it hears what we still look at.
        """
        with self._lock:
            self._held.clear()
            self._unsure = same_server
            if not same_server:
                self._forgotten += 1
                self._mapped.clear()
