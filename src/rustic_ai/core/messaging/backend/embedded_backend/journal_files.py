"""The files of a journal's directory: its lock, the segment being written, merged segments."""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from rustic_ai.core.errors import JournalError
from rustic_ai.core.messaging.backend.embedded_backend.journal_records import (
    SEGMENT_HEADER_SIZE,
    State,
    run_header,
    seal,
    segment_header,
    snapshot,
)
from rustic_ai.core.messaging.backend.embedded_backend.journal_recovery import (
    SUFFIX,
    Segment,
    collector_at_rest,
    read_segment,
)

logger = logging.getLogger(__name__)

LOCK = "lock"
UNFINISHED = ".new"
_SPARSE = 4
"""Neighbours are merged when all that is wanted of them fills this part of a segment."""
_fdatasync = getattr(os, "fdatasync", os.fsync)  # macOS has none


class DirectoryLock:
    """Keeps a second server away from a directory, until closed or this process ends."""

    def __init__(self, directory: Path) -> None:
        self._fd = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(self._fd, 32, 0).decode(errors="replace").strip()
            self.close_copy()
            raise JournalError(
                path=str(directory),
                reason=f"another message server uses it (pid {holder or 'unknown'})",
                hint="stop that one, or give this one another directory",
            ) from error
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def close(self) -> None:
        """Give it back, even if a process that was just forked has a copy of it."""
        if self._fd >= 0:
            fcntl.flock(self._fd, fcntl.LOCK_UN)
            self.close_copy()

    def close_copy(self) -> None:
        """Close this descriptor only."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class SegmentWriter:
    """Appends batches to a segment. A batch that fails is taken back; after that it may go on."""

    def __init__(self, segment: Segment) -> None:
        self.segment = segment
        self.broken = ""
        """Why nothing can be written any more, if so."""
        self.synced = 0
        self._fd = os.open(segment.path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)

    def append(self, parts: list[bytes]) -> None:
        """Write a batch; it is one write where the system takes it in one."""
        segment = self.segment
        buffers = seal(parts, segment.epoch, segment.number, segment.size, self.synced)
        _write_all(self._fd, buffers)
        segment.size += sum(map(len, buffers))

    def take_back(self, size: int) -> None:
        """Make the file what it was before a batch."""
        self.segment.size = size
        try:
            os.ftruncate(self._fd, size)
        except OSError as error:
            self.broken = f"a batch that failed could not be taken back: {error.strerror}"

    def sync(self) -> None:
        """Wait until all is on disk. A failure is for good: what was lost is not known."""
        try:
            _fdatasync(self._fd)
        except OSError as error:
            self.broken = f"the disk did not take what was written: {error.strerror}"
            raise
        self.synced = self.segment.size

    def close(self) -> None:
        """Close the file."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def _write_all(fd: int, buffers: Sequence[bytes]) -> None:
    written = os.writev(fd, buffers)
    if written == sum(map(len, buffers)):
        return
    rest = memoryview(b"".join(buffers))[written:]
    while rest:
        rest = rest[os.write(fd, rest) :]


def create_segment(segment: Segment, parts: list[bytes], *, durable: bool) -> None:
    """Write a segment with one batch under its name, whole or not at all."""
    unfinished = segment.path.with_name(segment.path.name + UNFINISHED)
    header = segment_header(segment.epoch, segment.number)
    buffers = [header, *seal(parts, segment.epoch, segment.number, SEGMENT_HEADER_SIZE, 0)]
    fd = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        _write_all(fd, buffers)
        if durable:
            _fdatasync(fd)
    finally:
        os.close(fd)
    unfinished.replace(segment.path)
    segment.size = sum(map(len, buffers))
    if durable:
        sync_directory(segment.path.parent)


def sync_directory(directory: Path) -> None:
    """Wait until the names in a directory are on disk."""
    fd = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def path_of(directory: Path, number: int) -> Path:
    """Return the file of a segment."""
    return directory / f"{number:08d}{SUFFIX}"


class Archive:
    """The full segments of a journal, oldest first."""

    def __init__(self, segments: list[Segment], segment_bytes: int, *, durable: bool) -> None:
        self.segments = segments
        self._sparse = segment_bytes // _SPARSE
        self._durable = durable

    def drop_dead(self, starts: dict[int, int]) -> None:
        """Delete the segments of which nothing is wanted."""
        for segment in [each for each in self.segments if each.is_dead(starts)]:
            try:
                segment.path.unlink(missing_ok=True)
            except OSError:
                logger.exception("%s: could not be deleted", segment.path)
            else:
                self.segments.remove(segment)

    def merge_sparse(self, starts: dict[int, int]) -> None:
        """Merge the neighbours that give most room; a few old messages must not pin whole files."""
        index, gain = -1, 0
        for i, (first, second) in enumerate(pairwise(self.segments)):
            wanted = first.live(starts) + second.live(starts)
            if wanted <= self._sparse and first.size + second.size - wanted > gain:
                index, gain = i, first.size + second.size - wanted
        if index < 0:
            return
        first, second = self.segments[index : index + 2]
        try:
            with collector_at_rest():
                merged = _merge(first, second, starts, durable=self._durable)
        except (OSError, JournalError):
            logger.exception("%s: could not be merged with %s", second.path, first.path)
        else:
            self.segments[index : index + 2] = [merged]


def _merge(first: Segment, second: Segment, starts: dict[int, int], *, durable: bool) -> Segment:
    """Write what is wanted of two neighbours in the place of the second; the first goes.

    Where that is interrupted, messages stand in both files, and a reader skips the second copy.
    """
    state = State()
    merged = Segment(second.path, second.number, second.epoch)
    parts: list[bytes] = []
    for segment in (first, second):
        copy = Segment(segment.path, segment.number)
        for topic, base, count, data in read_segment(copy, state, last=False):
            if base + count <= starts.get(topic, 0):
                continue
            parts += (run_header(topic, base, count, len(data)), data)
            merged.add(topic, base, base + count, len(data))
    create_segment(merged, [*snapshot(state), *parts], durable=durable)
    first.path.unlink()
    return merged
