"""The journal of a message server: what it knows, on disk, in segments that are only appended to.

Nothing here knows of sockets or of what a message is. One thread uses it.
"""

from __future__ import annotations

import logging
import secrets
from pathlib import Path
from time import monotonic
from typing import Literal

from rustic_ai.core.errors import JournalError
from rustic_ai.core.forking import guard_forks
from rustic_ai.core.messaging.backend.embedded_backend.journal_files import (
    UNFINISHED,
    Archive,
    DirectoryLock,
    SegmentWriter,
    create_segment,
    path_of,
)
from rustic_ai.core.messaging.backend.embedded_backend.journal_records import (
    Changes,
    run_header,
    snapshot,
)
from rustic_ai.core.messaging.backend.embedded_backend.journal_recovery import (
    SUFFIX,
    Extent,
    Log,
    Recovered,
    Segment,
    read_log,
)

__all__ = ["Journal", "Recovered", "Sync"]

logger = logging.getLogger(__name__)

Sync = Literal["none", "interval", "group"]
"""When written batches are forced to disk: never, every so often, or each before its commit ends.

All of them survive the death of the server; only what is on disk survives that of the machine.
"""


class Journal:
    """Collects what happens, and writes it as one batch at each `commit`.

    A commit that raises JournalError has written nothing. What it was to write stays and goes with
    the next commit, unless the journal says that it cannot go on.
    """

    @classmethod
    def open(
        cls,
        directory: Path,
        *,
        sync: Sync = "interval",
        interval: float = 0.05,
        segment_bytes: int = 64 << 20,
    ) -> tuple[Journal, Recovered]:
        """Open the journal of a directory, which is made where there is none, and read it.

        Args:
            directory: Where the segments are; one server's alone.
            sync: When batches are forced to disk.
            interval: For `interval`: how much time may pass between that, in seconds.
            segment_bytes: Size at which another segment is begun.
        """
        lock = None
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = DirectoryLock(directory)
            for unfinished in directory.glob(f"*{SUFFIX}{UNFINISHED}"):
                unfinished.unlink()
            log = read_log(directory)
            journal = cls(directory, lock, log, sync, interval, segment_bytes)
        except BaseException as error:
            if lock is not None:
                lock.close()
            if isinstance(error, OSError):
                raise _failure(directory, "cannot be opened", error) from error
            raise
        return journal, journal._recovered(log)

    def __init__(
        self,
        directory: Path,
        lock: DirectoryLock,
        log: Log,
        sync: Sync,
        interval: float,
        segment_bytes: int,
    ) -> None:
        """Go on where `log` ends; see `open`."""
        self._directory, self._lock = directory, lock
        self._mode, self._interval, self._segment_bytes = sync, interval, segment_bytes
        self._durable = sync != "none"
        self._state = log.state
        self._parts: list[bytes] = []
        self._extents: dict[int, Extent] = {}
        self._changes = Changes()
        self._ends = {topic: log.state.starts.get(topic, 0) for topic in log.state.topics}
        self._ends |= log.ends
        self._trimmed = self._closed = False
        self._commits = self._syncs = 0
        self._last_sync = float("-inf")
        self._archive = Archive(log.segments[:-1], segment_bytes, durable=self._durable)
        self._rotate_at = segment_bytes
        self._writer = self._last_of(log.segments)
        self._drop_dead()
        guard_forks(self)

    def _last_of(self, segments: list[Segment]) -> SegmentWriter:
        if not segments:
            first = Segment(path_of(self._directory, 1), 1, secrets.randbits(64))
            create_segment(first, snapshot(self._state), durable=self._durable)
            segments = [first]
        for segment in segments:
            # What was written with another mode is not on disk yet.
            writer = SegmentWriter(segment)
            try:
                if self._durable:
                    writer.sync()
            except OSError:
                writer.close()
                raise
            if segment is not segments[-1]:
                writer.close()
        return writer

    def _recovered(self, log: Log) -> Recovered:
        state = log.state
        return Recovered(
            topics=sorted((number, *names) for number, names in state.topics.items()),
            runs=log.runs,
            cursors=dict(state.cursors),
            crashes=dict(state.crashes),
            producers=dict(state.producers),
            starts=dict(state.starts),
            swept=dict(state.swept),
            epoch=self._writer.segment.epoch,
            cut=log.cut,
        )

    def topic(self, number: int, namespace: str, name: str) -> None:
        """Say what a topic's number stands for; comes before anything else of that topic."""
        self._changes.topics[number] = (namespace, name)
        self._ends.setdefault(number, 0)

    def run(self, topic: int, base: int, count: int, data: bytes) -> None:
        """Add `count` messages, as they are; `base` is the position of the first.

        Raises:
            ValueError: The topic is not known, or does not go on at `base`.
        """
        if self._ends.get(topic) != base or count < 1:
            known = f"it goes on at {self._ends[topic]}" if topic in self._ends else "not known"
            raise ValueError(f"no run of {count} at {base} of topic {topic}: {known}")
        self._parts += (run_header(topic, base, count, len(data)), data)
        end = self._ends[topic] = base + count
        extent = self._extents.get(topic)
        if extent is None:
            self._extents[topic] = Extent(base, end, len(data))
        else:
            extent.end = end
            extent.size += len(data)

    def cursor(self, topic: int, subscriber: str, position: int) -> None:
        """Say how far a subscriber has read."""
        self._changes.cursor(topic, subscriber, position)

    def crashed(self, topic: int, subscriber: str, count: int) -> None:
        """Say how often a subscriber was lost with the message that it has not read in hand."""
        self._changes.crashes[topic, subscriber] = count

    def swept(self, topic: int, position: int) -> None:
        """Say before which position slots that messages needed may be in use again."""
        self._changes.swept[topic] = position

    def forget(self, topic: int, subscriber: str) -> None:
        """Forget a subscriber of a topic."""
        self._changes.cursor(topic, subscriber, None)

    def producer(self, client: int, accepted: int) -> None:
        """Say how much of a client was accepted; 0 forgets it."""
        self._changes.producers[client] = accepted

    def trimmed(self, topic: int, start: int) -> None:
        """Say that what is before `start` is not wanted any more."""
        before = self._changes.starts.get(topic, self._state.starts.get(topic, 0))
        if start > before:
            self._changes.starts[topic] = start
            self._ends[topic] = max(self._ends.get(topic, 0), start)

    def commit(self) -> None:
        """Write all that was added since the last commit, as one batch: whole or not at all."""
        if not self._parts and not self._changes:
            self.sync_if_due(monotonic())
            return
        self._check_usable()
        writer = self._writer
        before = writer.segment.size
        try:
            writer.append([*self._changes.records(), *self._parts])
            if self._mode == "group":
                self._sync_now(monotonic())
            elif self._mode == "interval":
                now = monotonic()
                if self.sync_due(now) == 0:
                    self._sync_now(now)
        except OSError as error:
            writer.take_back(before)
            raise _failure(writer.segment.path, "cannot be written", error) from error
        self._committed(writer.segment)
        if writer.segment.size >= self._rotate_at:
            self._rotate()
        if self._trimmed:
            self._drop_dead()

    def _check_usable(self) -> None:
        reason = "it is closed" if self._closed else self._writer.broken
        if reason:
            hint = "" if self._closed else "see to the disk, then start the message server again"
            raise JournalError(path=str(self._writer.segment.path), reason=reason, hint=hint)

    def _committed(self, segment: Segment) -> None:
        self._commits += 1
        for topic, extent in self._extents.items():
            segment.add(topic, extent.base, extent.end, extent.size)
        self._extents.clear()
        self._parts.clear()
        if self._changes:
            self._trimmed = self._trimmed or bool(self._changes.starts)
            self._changes.apply_to(self._state)
            self._changes = Changes()

    def sync_due(self, now: float) -> float | None:
        """Return in how many seconds `sync_if_due` has work, as `monotonic` counts; None: never."""
        writer = self._writer
        if self._mode != "interval" or self._closed or writer.synced == writer.segment.size:
            return None
        return max(0.0, self._last_sync + self._interval - now)

    def sync_if_due(self, now: float) -> None:
        """Force to disk what was committed, if it is time for that."""
        if self.sync_due(now) != 0 or self._writer.broken:
            return
        try:
            self._sync_now(now)
        except OSError as error:
            path = self._writer.segment.path
            raise _failure(path, "cannot be forced to disk", error) from error
        if self._trimmed:
            self._drop_dead()

    def _sync_now(self, now: float) -> None:
        self._last_sync = now
        self._syncs += 1
        self._writer.sync()

    def _rotate(self) -> None:
        """Begin another segment; where that fails, the one at hand grows on."""
        full = self._writer
        number = full.segment.number + 1
        following = Segment(path_of(self._directory, number), number, full.segment.epoch)
        try:
            if self._durable and full.synced < full.segment.size:
                self._sync_now(monotonic())
            create_segment(following, snapshot(self._state), durable=self._durable)
            self._writer = SegmentWriter(following)
        except OSError:
            logger.exception("%s: no further segment could be begun", full.segment.path)
            self._rotate_at = full.segment.size + self._segment_bytes
            return
        full.close()
        self._writer.synced = following.size if self._durable else 0
        self._archive.segments.append(full.segment)
        self._rotate_at = following.size + self._segment_bytes
        self._drop_dead()
        self._archive.merge_sparse(self._state.starts)

    def _drop_dead(self) -> None:
        """Delete segments of which nothing is wanted, once it is on disk that this is so."""
        if not self._durable or self._writer.synced == self._writer.segment.size:
            self._trimmed = False
            self._archive.drop_dead(self._state.starts)

    def close(self) -> None:
        """Commit, force to disk unless the mode is `none`, and let go of the directory."""
        if self._closed:
            return
        try:
            if not self._writer.broken:
                self.commit()
                if self._durable and self._writer.synced < self._writer.segment.size:
                    self._sync_now(monotonic())
        except OSError as error:
            path = self._writer.segment.path
            raise _failure(path, "cannot be forced to disk", error) from error
        finally:
            self._closed = True
            self._writer.close()
            self._lock.close()

    def close_in_fork(self) -> None:
        """Let a forked copy of the server hold neither lock nor segment."""
        self._closed = True
        self._writer.close()
        self._lock.close_copy()

    def statistics(self) -> dict[str, int]:
        """Return how much there is on disk, and how often that was written and forced there."""
        segments = [*self._archive.segments, self._writer.segment]
        return {
            "bytes": sum(segment.size for segment in segments),
            "segments": len(segments),
            "commits": self._commits,
            "syncs": self._syncs,
        }


def _failure(path: Path, what: str, error: OSError) -> JournalError:
    return JournalError(
        path=str(path),
        reason=f"it {what}: {error.strerror or error}",
        hint="make room, or see to the disk and the rights of the directory",
    )
