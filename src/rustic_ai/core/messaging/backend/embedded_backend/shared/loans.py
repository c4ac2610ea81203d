"""What a receiver has got of other clients' segments, and still looks at."""

from __future__ import annotations

import os
import threading
import weakref
from collections import Counter, deque
from collections.abc import Callable
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
        self._lent: Counter[int] = Counter()
        self._held: set[int] = set()
        self._ended: deque[int] = deque()
        """Slots of which a part has ended, as told by the garbage collector."""
        self._watched: set[int] = set()
        self._afterwards: Callable[[], None] | None = None

    def borrow(
        self, place: Place, want: Callable[[int], int | None], *, held: bool = False
    ) -> Part:
        """Return a part.

        Args:
            place: where it lies.
            want: returns the descriptor of a segment, from the server; None: there is none.
            held: the server knows already that it is looked at.

        Raises:
            OSError: it cannot be mapped.
        """
        with self._lock:
            self._collect()
            if held:
                self._held.add(place.slot)
            mapping = self._map(place.slot >> SEGMENT_SHIFT, want)
            if mapping is None:
                return LostPart("nobody needed its memory any more")
            if place.offset + place.size > mapping.size:
                return LostPart("it would reach beyond its segment")
            block = block_in(mapping, place.offset, place.size)
            self._watch(block, place.slot)
        return memoryview(block).toreadonly().cast("B")

    def _map(self, segment: int, want: Callable[[int], int | None]) -> Mapping | None:
        mapping = self._mapped.get(segment)
        if mapping is None:
            fd = want(segment)
            if fd is None:
                return None
            try:
                mapping = Mapping(fd, os.fstat(fd).st_size, writable=False)
            finally:
                os.close(fd)
            self._mapped[segment] = mapping
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

    def news(self) -> bytes:
        """Return what the server must hear before anything more is acknowledged."""
        if not (self._lent or self._held):
            return b""
        with self._lock:
            self._collect()
            new, over = self._lent.keys() - self._held, self._held - self._lent.keys()
            self._held = set(self._lent)
        return b"".join(
            [pack(Op.HOLD, id=slot) for slot in new] + [pack(Op.UNHOLD, id=slot) for slot in over]
        )

    def close(self, afterwards: Callable[[], None]) -> None:
        """Call `afterwards` as soon as no part is in use any more."""
        self._afterwards = afterwards
        if not self._watched:
            afterwards()

    def forget(self, segment: int) -> None:
        """Take the word that a segment is not used any more; parts of it keep it mapped."""
        with self._lock:
            self._mapped.pop(segment, None)

    def start_over(self, *, same_server: bool) -> None:
        """Take note that what the server was told may be lost."""
        with self._lock:
            self._held.clear()
            if not same_server:
                self._mapped.clear()
