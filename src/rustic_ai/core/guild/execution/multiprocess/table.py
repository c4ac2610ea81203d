"""The shared table: who runs where and how it is, readable by any process without asking.

One anonymous file of memory with a fixed slot per agent, then the texts of their specs. Each group
of fields has exactly one writer, so there is no lock. A record carries its checksum, so a reader
that meets a writer at work, or one that died half way, sees that and reads again.

    header   64 bytes   magic, version, number of slots, engine's pid, epoch; slots ever used
    slot    512 bytes   0-255   record, by the engine: checksum and `RECORD`
                        256-383 cells, by the agent: 16 x 8 bytes, each stored at once
    texts               JSON, by the engine, in blocks of 256 bytes times a power of two

Nothing has a name: nothing stays in /dev/shm whatever dies first.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
import tempfile
import time
import weakref
import zlib
from dataclasses import dataclass
from typing import Self

from rustic_ai.core.errors import EngineError

_MAGIC = b"RUSTICT1"
_HEADER = struct.Struct("<8sIIqq")
_HEADER_SIZE, _SLOT, _CELLS_AT, _CELLS = 64, 512, 256, 16
_USED = struct.Struct("<Q")
_USED_AT = 40
_CRC = struct.Struct("<I")
_RECORD = struct.Struct("<IIIIiqqqqQII")
_NO_CODE = -(1 << 31)
_BLOCK = 256
_TRIES = 1000

BEAT, BUSY_SINCE, MESSAGE, HANDLED, ERRORS = range(5)
"""Cells: monotonic nanoseconds of the last heartbeat and of the begin of the handler that runs (0:
none), the id of its message, messages handled, and handlers failed."""


@dataclass(frozen=True, slots=True)
class Record:
    """What the engine says of one agent; times in nanoseconds, `started` and `ready` monotonic."""

    generation: int
    state: int
    pid: int
    restarts: int
    exitcode: int | None
    started: int
    ready: int
    changed: int
    peak_memory_kb: int
    text: tuple[int, int, int]
    """Where its text is: offset, size, checksum."""


@dataclass(frozen=True, slots=True)
class Place:
    """An agent's place in the table."""

    slot: int
    text: tuple[int, int, int]
    cells: memoryview


class SharedTable:
    """The table, mapped. One process writes records; an agent writes the cells of its slot."""

    def __init__(self, fd: int, *, writable: bool) -> None:
        self._fd = fd
        head = os.pread(fd, _HEADER.size, 0)
        magic, _, slots, self.engine_pid, self.epoch = (
            _HEADER.unpack(head) if len(head) == _HEADER.size else (b"", 0, 0, 0, 0)
        )
        if magic != _MAGIC:
            raise EngineError(summary="this is no table of agents, or one of another version")
        self.slots: int = slots
        self._texts_at = _HEADER_SIZE + slots * _SLOT
        access = mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ
        self._map = mmap.mmap(fd, self._texts_at, access=access)
        self._close_fd = weakref.finalize(self, os.close, fd)
        self._free_blocks: dict[int, list[int]] = {}
        self._end = self._texts_at

    @classmethod
    def create(cls, slots: int) -> Self:
        """Make a table; memory is used only for slots that are."""
        if hasattr(os, "memfd_create"):
            fd = os.memfd_create("rustic-table", os.MFD_CLOEXEC)
        else:
            fd, path = tempfile.mkstemp()
            os.unlink(path)
        os.ftruncate(fd, _HEADER_SIZE + slots * _SLOT)
        os.pwrite(fd, _HEADER.pack(_MAGIC, 1, slots, os.getpid(), time.time_ns()), 0)
        return cls(fd, writable=True)

    @property
    def used(self) -> int:
        """How many slots have ever been written, from the first on."""
        used: int = _USED.unpack_from(self._map, _USED_AT)[0]
        return used

    def fileno(self) -> int:
        """Return the descriptor, to be handed to others."""
        return self._fd

    def close(self) -> None:
        """Give mapping and descriptor back."""
        with contextlib.suppress(BufferError):  # somebody holds cells: it goes with them
            self._map.close()
        self._close_fd()

    # Records

    def write(self, slot: int, record: Record) -> None:
        """Write the record of a slot; one writer per table."""
        code = _NO_CODE if record.exitcode is None else record.exitcode
        body = _RECORD.pack(
            record.generation,
            record.state,
            record.pid,
            record.restarts,
            code,
            record.started,
            record.ready,
            record.changed,
            record.peak_memory_kb,
            *record.text,
        )
        at = _HEADER_SIZE + slot * _SLOT
        self._map[at : at + _CRC.size + len(body)] = _CRC.pack(zlib.crc32(body)) + body
        if slot >= self.used:
            _USED.pack_into(self._map, _USED_AT, slot + 1)

    def read(self, slot: int) -> Record | None:
        """Return the record of a slot; None where there never was one.

        Raises:
            EngineError: its writer died in the middle of it.
        """
        at = _HEADER_SIZE + slot * _SLOT
        for _ in range(_TRIES):
            data = self._map[at : at + _CRC.size + _RECORD.size]
            body = data[_CRC.size :]
            if zlib.crc32(body) == _CRC.unpack_from(data)[0]:
                fields = _RECORD.unpack(body)
                code = None if fields[4] == _NO_CODE else fields[4]
                return Record(*fields[:4], code, *fields[5:9], fields[9:])  # type: ignore[call-arg]
            if not any(data):
                return None
            time.sleep(0)  # lets the writer go on
        raise EngineError(summary=f"record {slot} of the table of agents was never finished")

    def clear(self, slot: int) -> None:
        """Empty a slot, its cells too."""
        at = _HEADER_SIZE + slot * _SLOT
        self._map[at : at + _SLOT] = bytes(_SLOT)

    def clear_cells(self, slot: int) -> None:
        """Empty the cells of a slot, for its agent's next process."""
        at = _HEADER_SIZE + slot * _SLOT + _CELLS_AT
        self._map[at : at + _CELLS * 8] = bytes(_CELLS * 8)

    def cells(self, slot: int) -> memoryview:
        """Return the cells of a slot, as unsigned 8-byte integers; release it before `close`."""
        at = _HEADER_SIZE + slot * _SLOT + _CELLS_AT
        return memoryview(self._map)[at : at + _CELLS * 8].cast("Q")

    # Texts

    def put_text(self, text: bytes) -> tuple[int, int, int]:
        """Store a text; returns where it is, for its record."""
        block = _block_for(len(text))
        free = self._free_blocks.get(block)
        if free:
            offset = free.pop()
        else:
            offset, self._end = self._end, self._end + block
        os.pwrite(self._fd, text, offset)
        return offset, len(text), zlib.crc32(text)

    def drop_text(self, place: tuple[int, int, int]) -> None:
        """Give the block of a text back."""
        self._free_blocks.setdefault(_block_for(place[1]), []).append(place[0])

    def text(self, place: tuple[int, int, int]) -> bytes | None:
        """Return a text; None where it has been replaced meanwhile."""
        offset, size, crc = place
        data = os.pread(self._fd, size, offset)
        return data if zlib.crc32(data) == crc else None


def _block_for(size: int) -> int:
    return max(_BLOCK, 1 << max(0, size - 1).bit_length())
