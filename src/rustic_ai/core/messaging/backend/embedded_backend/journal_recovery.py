"""Reads the segments of a journal back, to the last batch that was written whole."""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from zlib import crc32

from rustic_ai.core.errors import JournalError
from rustic_ai.core.messaging.backend.embedded_backend.journal_records import (
    COMMIT,
    CRASHES,
    MAGIC,
    RECORD,
    RECORD_SIZE,
    RUN,
    SEGMENT_HEADER,
    SEGMENT_HEADER_SIZE,
    SNAPSHOT,
    SWEPT,
    VERSION,
    Run,
    State,
    is_promised,
    is_sealed,
)

logger = logging.getLogger(__name__)

SUFFIX = ".journal"
START_AFRESH = (
    "restore the files of this directory from a backup, or move the directory away to begin with "
    "an empty journal"
)


@dataclass(slots=True)
class Extent:
    """What a segment holds of one topic."""

    base: int
    end: int
    size: int


@dataclass(slots=True)
class Segment:
    """One file of the journal."""

    path: Path
    number: int
    epoch: int = 0
    size: int = 0
    extents: dict[int, Extent] = field(default_factory=dict)

    def add(self, topic: int, base: int, end: int, size: int) -> None:
        """Count messages that stand in it."""
        extent = self.extents.get(topic)
        if extent is None:
            self.extents[topic] = Extent(base, end, size)
        else:
            extent.end = end
            extent.size += size

    def is_dead(self, starts: dict[int, int]) -> bool:
        """Say whether nothing in it is wanted; what is found dead is not asked again."""
        while self.extents:
            topic, extent = next(iter(self.extents.items()))
            if extent.end > starts.get(topic, 0):
                return False
            del self.extents[topic]
        return True

    def live(self, starts: dict[int, int]) -> int:
        """Return about how many bytes of messages are still wanted."""
        total = 0
        for topic, extent in self.extents.items():
            wanted = extent.end - max(extent.base, starts.get(topic, 0))
            if wanted > 0:
                total += max(1, extent.size * wanted // (extent.end - extent.base))
        return total


@dataclass(slots=True)
class Recovered:
    """What a journal remembers.

    The first run of a topic may begin before the topic's start: a run is kept whole. Runs of a
    topic follow each other without a gap.
    """

    topics: list[tuple[int, str, str]] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    cursors: dict[tuple[int, str], int] = field(default_factory=dict)
    crashes: dict[tuple[int, str], int] = field(default_factory=dict)
    producers: dict[int, int] = field(default_factory=dict)
    starts: dict[int, int] = field(default_factory=dict)
    swept: dict[int, int] = field(default_factory=dict)
    epoch: int = 0
    """Made once for a journal's directory: another one is another journal."""
    cut: int = 0
    """Bytes of an unfinished batch that were taken off the end."""


@dataclass(slots=True)
class Log:
    """What the segments of a directory say."""

    segments: list[Segment] = field(default_factory=list)
    state: State = field(default_factory=State)
    runs: list[Run] = field(default_factory=list)
    ends: dict[int, int] = field(default_factory=dict)
    cut: int = 0


def read_log(directory: Path) -> Log:
    """Read all segments; take a torn tail off the last one. Raises JournalError on damage."""
    log = Log()
    files = sorted((number_of(path), path) for path in directory.glob(f"*{SUFFIX}"))
    by_segment: list[list[Run]] = []
    with collector_at_rest():
        for index, (number, path) in enumerate(files):
            segment = Segment(path, number)
            runs = read_segment(segment, log.state, last=index == len(files) - 1)
            tail = path.stat().st_size - segment.size
            if tail:
                _cut_tail(segment, tail)
                log.cut += tail
            if segment.size:
                _check_epoch(segment, log.segments)
                log.segments.append(segment)
                by_segment.append(runs)
        for segment, runs in zip(log.segments, by_segment, strict=True):
            _take_runs(log, segment, runs)
    return log


def number_of(path: Path) -> int:
    """Return the number of a segment's file."""
    if not path.stem.isdecimal():
        raise JournalError(
            path=str(path), reason="this is no name of a segment", hint="move this file away"
        )
    return int(path.stem)


def read_segment(segment: Segment, state: State, *, last: bool) -> list[Run]:
    """Read a segment into `state` and return its runs; `segment.size` is what is valid of it.

    Only the last segment may end with an unfinished batch, and only where none that came after
    says that this one was on disk.
    """
    data = segment.path.read_bytes()
    if last and len(data) < SEGMENT_HEADER_SIZE:
        segment.size = 0
        return []
    segment.epoch = _read_header(segment, data)
    runs, end = _read_batches(segment, data, state)
    damaged = end < len(data)
    if damaged and (not last or is_promised(data, segment.epoch, segment.number, end)):
        reason = "what was written here is damaged"
        raise JournalError(path=str(segment.path), offset=end, reason=reason, hint=START_AFRESH)
    # Without its snapshot a segment is as good as none.
    segment.size = end if end > SEGMENT_HEADER_SIZE else 0
    return runs


def _read_header(segment: Segment, data: bytes) -> int:
    path = str(segment.path)
    header = data[: SEGMENT_HEADER.size]
    if len(data) < SEGMENT_HEADER_SIZE or header[: len(MAGIC)] != MAGIC:
        reason = "this is no segment of a journal, or its beginning is damaged"
        raise JournalError(path=path, offset=0, reason=reason, hint=START_AFRESH)
    _, version, number, epoch = SEGMENT_HEADER.unpack(header)
    checksum = int.from_bytes(data[SEGMENT_HEADER.size : SEGMENT_HEADER_SIZE], "little")
    if checksum != crc32(header) or (version == VERSION and number != segment.number):
        reason = "its beginning is damaged, or it was given another name"
        raise JournalError(path=path, offset=0, reason=reason, hint=START_AFRESH)
    if version != VERSION:
        raise JournalError(
            path=path,
            reason=f"its format has version {version}, this program reads version {VERSION}",
            hint="use the program that wrote it, or another directory",
        )
    return int(epoch)


def _read_batches(segment: Segment, data: bytes, state: State) -> tuple[list[Run], int]:
    """Return the runs of all valid batches, and where the last of these ends."""
    unpack, view = RECORD.unpack_from, memoryview(data)
    runs: list[Run] = []
    add = runs.append
    others: list[tuple[int, int, int, bytes]] = []
    whole = 0  # runs of finished batches
    position = good = SEGMENT_HEADER_SIZE
    last = len(data) - RECORD_SIZE
    while position <= last:
        length, kind, value, topic, n = unpack(data, position)
        body = position + RECORD_SIZE
        if kind == RUN:
            position = body + length
            add((topic, value, n, data[body:position]))
        elif kind == COMMIT:
            if not is_sealed(view, segment.epoch, segment.number, good, position):
                break
            for record in others:
                state.apply(*record)
            others.clear()
            whole = len(runs)
            position = good = body
        elif 0 < kind <= SNAPSHOT or kind in {CRASHES, SWEPT}:
            position = body + length
            others.append((kind, value, topic, data[body:position]))
        else:
            break
    del runs[whole:]
    return runs, good


def _cut_tail(segment: Segment, tail: int) -> None:
    logger.warning(
        "%s: took %d bytes of an unfinished batch off its end at byte %d",
        segment.path,
        tail,
        segment.size,
    )
    if segment.size:
        os.truncate(segment.path, segment.size)
    else:
        segment.path.unlink()


def _check_epoch(segment: Segment, before: list[Segment]) -> None:
    if before and before[0].epoch != segment.epoch:
        raise JournalError(
            path=str(segment.path),
            reason=f"it belongs to another journal than {before[0].path.name}",
            hint="move the file away that does not belong here",
        )


def _take_runs(log: Log, segment: Segment, runs: list[Run]) -> None:
    """Keep what is not trimmed, and not there already: a merge may have been interrupted."""
    starts, ends, keep = log.state.starts, log.ends, log.runs.append
    sizes: dict[int, int] = {}
    firsts: dict[int, int] = {}
    for run in runs:
        topic, base, count, data = run
        end = ends[topic] if topic in ends else starts.get(topic, 0)
        after = base + count
        if after <= end:
            continue
        if base > end:
            raise JournalError(
                path=str(segment.path),
                reason=f"messages {end} to {base - 1} of topic {topic} are in no segment",
                hint=START_AFRESH,
            )
        ends[topic] = after
        if topic in sizes:
            sizes[topic] += len(data)
        else:
            sizes[topic], firsts[topic] = len(data), base
        keep(run)
    for topic, size in sizes.items():
        segment.add(topic, firsts[topic], ends[topic], size)


@contextmanager
def collector_at_rest() -> Iterator[None]:
    """Spare the search for garbage among a million new tuples, where there is none."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
