"""A ring of bytes in shared memory, through which one process writes to another one.

It takes a system call neither to write nor to read, and wakes nobody: the reader says whether it
looks, and the writer asks after each write. One process writes, one reads; each of the three cells
has one writer. That is enough where stores are seen in the order in which they were made, and
a lock between a store and a load keeps these in order: on x86 (Intel, Software Developer's Manual,
volume 3, 9.2.3), and only there it is used.
"""

from __future__ import annotations

import mmap
import os

from rustic_ai.core.errors import ProtocolError
from rustic_ai.core.messaging.backend.embedded_backend.shared import seals

SUPPORTED = seals.SUPPORTED and os.uname().machine == "x86_64"
_SIZE = 256 << 10
"""Bytes: what comes while the reader looks away is a tenth of it."""
_MASK = _SIZE - 1
_FIRST = mmap.PAGESIZE
"""Where the bytes begin, behind the cells."""
_WRITTEN, _TAKEN, _WATCHED = 0, 8, 16
"""Which words the cells are, each on a cache line of its own: how many bytes were ever written, how
many were taken, and whether the reader looks."""


class _Ring:
    def __init__(self, fd: int) -> None:
        self._memory = mmap.mmap(fd, _FIRST + _SIZE)
        whole = memoryview(self._memory)
        self._cells = whole[:_FIRST].cast("Q")
        self._bytes = whole[_FIRST:]
        whole.release()

    def close(self) -> None:
        """Give the memory back. Idempotent."""
        self._cells.release()
        self._bytes.release()
        self._memory.close()


class RingWriter(_Ring):
    """The writing end. Every call but `unseen` is made under one lock.

    Args:
        fd: descriptor of a segment of `make`.
    """

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        self.written = 0
        """How many bytes were ever written."""
        self.used = False
        """Whether something was written that the reader was not told of in another way."""

    @staticmethod
    def make() -> int:
        """Return the descriptor of a new segment.

        Raises:
            OSError: there is no memory, or no descriptor left.
        """
        return seals.make_sealed("rustic-ring", _FIRST + _SIZE)

    def put(self, data: bytes) -> bool:
        """Write, whole or not at all; False where nobody looks, or there is no room."""
        size, written, cells = len(data), self.written, self._cells
        if not cells[_WATCHED] or written + size - cells[_TAKEN] > _SIZE:
            return False
        at = written & _MASK
        if at + size <= _SIZE:
            self._bytes[at : at + size] = data
        else:
            first = _SIZE - at
            self._bytes[at:] = data[:first]
            self._bytes[: size - first] = data[first:]
        self.written = cells[_WRITTEN] = written + size
        self.used = True
        return True

    @property
    def unseen(self) -> bool:
        """Whether the reader must be told that something was written, after the lock."""
        return self.used and not self._cells[_WATCHED]


class RingReader(_Ring):
    """The reading end; it does not trust the other one.

    Args:
        fd: descriptor of a segment that cannot shrink.
    """

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        self._taken = 0

    @staticmethod
    def fits(fd: int) -> bool:
        """Say whether a descriptor is one of a ring."""
        return seals.sealed_size(fd) == _FIRST + _SIZE

    def watch(self, *, looks: bool) -> None:
        """Say whether the reader looks; after it has ceased to, it must look once more."""
        self._cells[_WATCHED] = looks

    def written(self) -> int:
        """Return how many bytes were written up to now."""
        return self._cells[_WRITTEN]

    def take(self, until: int | None = None) -> bytes:
        """Return what was written, or what of it is before `until`.

        Raises:
            ProtocolError: the cells say what cannot be.
        """
        taken = self._taken
        size = (self._cells[_WRITTEN] if until is None else until) - taken
        if size <= 0 and until is not None:
            return b""
        if not 0 <= size <= _SIZE:
            raise ProtocolError(summary=f"a ring with {size:,} bytes in it")
        at = taken & _MASK
        data = bytes(self._bytes[at : at + size])
        if len(data) < size:
            data += self._bytes[: size - len(data)]
        self._taken = self._cells[_TAKEN] = taken + size
        return data
