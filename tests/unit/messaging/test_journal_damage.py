"""A journal whose files were torn, damaged, mixed up, or could not be written."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rustic_ai.core.errors import JournalError
from rustic_ai.core.messaging.backend.embedded_backend import journal_files
from rustic_ai.core.messaging.backend.embedded_backend.journal import Journal
from rustic_ai.core.messaging.backend.embedded_backend.journal_records import (
    SEGMENT_HEADER,
    SEGMENT_HEADER_SIZE,
)
from tests.unit.messaging.journals import fill, flip, opened, recovered_from, segments


def test_a_torn_tail_is_cut_wherever_it_is_torn(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Cut at every byte of the last batch, what was committed before is there, and it goes on."""
    log = tmp_path / "log"
    *_, before, after = fill(log, 4)
    whole = segments(log)[0].read_bytes()
    assert len(whole) == after
    for size in range(before + 1, after):
        segments(log)[0].write_bytes(whole[:size])
        caplog.clear()
        with opened(log) as (journal, back):
            assert [run[1] for run in back.runs] == [0, 1, 2]
            assert back.cursors == {(1, "reader"): 2}
            assert back.cut == size - before
            assert f"took {size - before} bytes" in caplog.text
            journal.run(1, 3, 1, b"again")
        assert recovered_from(log).runs[-1] == (1, 3, 1, b"again")


def test_a_flipped_byte_in_the_last_batch_cuts_it(tmp_path: Path) -> None:
    """No byte of a batch can be another without the batch being taken for torn."""
    log = tmp_path / "log"
    *_, before, after = fill(log, 3)
    whole = segments(log)[0].read_bytes()
    for offset in range(before, after):
        segments(log)[0].write_bytes(whole)
        flip(segments(log)[0], offset)
        back = recovered_from(log)
        assert [run[1] for run in back.runs] == [0, 1]
        assert back.cut == after - before


def test_a_torn_first_batch_begins_the_journal_anew(tmp_path: Path) -> None:
    """A journal that died while it was being made is an empty one."""
    fill(tmp_path, 0)
    whole = segments(tmp_path)[0].read_bytes()
    for size in (0, 1, SEGMENT_HEADER_SIZE - 1, SEGMENT_HEADER_SIZE, SEGMENT_HEADER_SIZE + 1):
        segments(tmp_path)[0].write_bytes(whole[:size])
        back = recovered_from(tmp_path)
        assert (back.topics, back.runs, back.cut) == ([], [], size)


def test_a_segment_that_was_not_finished_is_swept(tmp_path: Path) -> None:
    """What a death left of a segment that had no name yet is deleted, and read by nobody."""
    fill(tmp_path, 2)
    unfinished = tmp_path / "00000002.journal.new"
    unfinished.write_bytes(b"half")
    assert len(recovered_from(tmp_path).runs) == 2
    assert not unfinished.exists()


def test_a_segment_that_was_just_begun_may_be_lost(tmp_path: Path) -> None:
    """Torn in its first batch, it is as if it had never been begun: the one before knows all."""
    journal, _ = Journal.open(tmp_path, sync="none", segment_bytes=2000)
    journal.topic(1, "g", "slow")
    journal.topic(2, "g", "busy")
    journal.run(1, 0, 1, b"first")
    journal.cursor(1, "reader", 1)
    for base in range(1000):
        before = segments(tmp_path)
        journal.run(2, base, 1, b"%d" % base * 50)
        journal.trimmed(2, base)
        journal.commit()
        if base > 100 and segments(tmp_path)[-1] not in before:
            break
    assert segments(tmp_path)[0].name != "00000001.journal"  # it was merged with the full one
    journal.close_in_fork()
    os.truncate(segments(tmp_path)[-1], SEGMENT_HEADER_SIZE + 1)
    back = recovered_from(tmp_path)
    assert back.cut == SEGMENT_HEADER_SIZE + 1
    assert back.topics == [(1, "g", "slow"), (2, "g", "busy")]
    assert (back.cursors, back.starts) == ({(1, "reader"): 1}, {2: base})
    assert back.runs == [(1, 0, 1, b"first"), (2, base, 1, b"%d" % base * 50)]


@pytest.mark.parametrize("where", ["at its head", "in the middle", "at its end"])
def test_damage_in_an_earlier_segment_is_an_error(tmp_path: Path, where: str) -> None:
    """Nothing is cut where messages come after it: the file and the offset are named."""
    fill(tmp_path, 60, segment_bytes=1000)
    damaged = segments(tmp_path)[1]
    size = damaged.stat().st_size
    flip(damaged, {"at its head": 10, "in the middle": size // 2, "at its end": size - 1}[where])
    for _ in range(2):  # and the refusal has changed nothing
        with pytest.raises(JournalError, match=r"damaged.*\nhint: .*backup") as caught:
            Journal.open(tmp_path)
        assert caught.value.path == str(damaged)
        assert 0 <= caught.value.offset < size


def test_damage_of_what_was_on_disk_is_no_torn_tail(tmp_path: Path) -> None:
    """Later batches say what was synced before them: damage in that is an error, else it is cut."""
    for sync in ("group", "none"):
        sizes = fill(tmp_path / sync, 5, sync=sync)
        flip(segments(tmp_path / sync)[0], sizes[1] + 30)
    with pytest.raises(JournalError, match="damaged") as caught:
        Journal.open(tmp_path / "group")
    assert caught.value.offset == sizes[1]
    back = recovered_from(tmp_path / "none")
    assert ([run[1] for run in back.runs], back.cut) == ([0, 1], sizes[4] - sizes[1])


def test_a_missing_segment_is_an_error(tmp_path: Path) -> None:
    """A hole in a topic is told, not closed by moving positions."""
    fill(tmp_path, 60, segment_bytes=1000)
    segments(tmp_path)[1].unlink()
    with pytest.raises(JournalError, match=r"messages \d+ to \d+ of topic 1 are in no segment"):
        Journal.open(tmp_path)


def test_files_that_do_not_belong_here_are_named(tmp_path: Path) -> None:
    """Another journal's segment, another version, and no segment at all are three clear errors."""
    fill(tmp_path / "a", 1)
    fill(tmp_path / "b", 60, segment_bytes=1000)
    shutil.copy(segments(tmp_path / "b")[1], tmp_path / "a")
    with pytest.raises(JournalError, match=r"belongs to another journal than 0{7}1\."):
        Journal.open(tmp_path / "a")
    (tmp_path / "a" / "00000002.journal").write_bytes(b"x" * 100)
    with pytest.raises(JournalError, match="no segment of a journal"):
        Journal.open(tmp_path / "a")
    header = SEGMENT_HEADER.pack(b"RUSTICJL", 9, 2, 1)
    header += struct.pack("<I", zlib.crc32(header))
    (tmp_path / "a" / "00000002.journal").write_bytes(header)
    with pytest.raises(JournalError, match="version 9, this program reads version 1"):
        Journal.open(tmp_path / "a")
    (tmp_path / "a" / "00000002.journal").rename(tmp_path / "a" / "mine.journal")
    with pytest.raises(JournalError, match="no name of a segment"):
        Journal.open(tmp_path / "a")


@contextmanager
def full_at(size: int) -> Iterator[None]:
    """Let no file of this process grow over `size`."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_batch_that_found_no_room_is_not_written_and_goes_later(tmp_path: Path) -> None:
    """A half-written batch is taken back; what it held goes with the next commit that succeeds."""
    [size] = fill(tmp_path, 1)
    with opened(tmp_path) as (journal, _):
        journal.run(1, 1, 1, bytes(10_000))
        with full_at(size + 5000):
            with pytest.raises(
                JournalError, match=r"cannot be written.*\nhint: make room"
            ) as caught:
                journal.commit()
            assert isinstance(caught.value.__cause__, OSError)
            assert segments(tmp_path)[0].stat().st_size == size
        journal.run(1, 2, 1, b"next")
        journal.commit()
    assert [run[1] for run in recovered_from(tmp_path).runs] == [0, 1, 2]


def test_after_a_failed_sync_nothing_is_promised_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a failed sync lost nobody knows: this commit and all later ones raise; closing works."""

    def fail(_fd: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    journal, _ = Journal.open(tmp_path, sync="group")
    size = journal.statistics()["bytes"]
    with monkeypatch.context() as broken_disk:
        broken_disk.setattr(journal_files, "_fdatasync", fail)
        journal.producer(1, 1)
        with pytest.raises(JournalError, match="cannot be written: Input/output error"):
            journal.commit()
    assert segments(tmp_path)[0].stat().st_size == size
    with pytest.raises(JournalError, match=r"the disk did not take .*\nhint: see to the disk"):
        journal.commit()
    journal.close()
    journal.producer(1, 2)
    with pytest.raises(JournalError, match="closed"):
        journal.commit()
    assert recovered_from(tmp_path).producers == {}


def test_a_batch_that_cannot_be_taken_back_is_the_last(tmp_path: Path) -> None:
    """Where a failed batch may stand in the file, nothing is written behind it."""
    journal, _ = Journal.open(tmp_path, sync="group")
    reader, writer = os.pipe()  # can be neither synced nor made shorter
    os.dup2(writer, journal._writer._fd)
    for expected in ("cannot be written", "could not be taken back"):
        journal.producer(1, 1)
        with pytest.raises(JournalError, match=expected):
            journal.commit()
    journal.close()
    os.close(reader)
    os.close(writer)


def test_a_segment_that_cannot_be_begun_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Where no further segment can be made, the full one grows on, and that is logged."""
    with opened(tmp_path, segment_bytes=1000) as (journal, _):
        obstacle = tmp_path / "00000002.journal.new"
        obstacle.mkdir()
        journal.topic(1, "g", "t")
        for base in range(30):
            journal.run(1, base, 1, bytes(100))
            journal.commit()
        assert "no further segment" in caplog.text
        assert journal.statistics()["segments"] == 1
        obstacle.rmdir()
        for base in range(30, 60):
            journal.run(1, base, 1, bytes(100))
            journal.commit()
        assert journal.statistics()["segments"] > 1
    assert len(recovered_from(tmp_path).runs) == 60
