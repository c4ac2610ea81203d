"""The journal of a message server: what was committed comes back."""

from __future__ import annotations

import os
from pathlib import Path
from time import monotonic

import pytest

from rustic_ai.core.errors import JournalError
from rustic_ai.core.messaging.backend.embedded_backend.journal import Journal
from tests.unit.messaging.journals import fill, opened, recovered_from, segments


def test_everything_comes_back(tmp_path: Path) -> None:
    """Topics, runs, cursors, producers and starts are what they were, numbers of any size too."""
    last, many = (1 << 32) - 1, (1 << 64) - 1
    with opened(tmp_path) as (journal, empty):
        assert (empty.topics, empty.runs, empty.cut) == ([], [], 0)
        journal.topic(last, "gilde ü", "tÖpic/…")
        journal.topic(1, "", "")
        journal.run(1, 0, 3, b"\x00abc\xff")
        journal.run(last, 0, 1, b"")
        journal.run(1, 3, 2, b"de")
        journal.cursor(1, "ä b", 2)
        journal.cursor(last, "", many)
        journal.producer(many, many)
        journal.trimmed(1, 1)
        journal.commit()
    back = recovered_from(tmp_path)
    assert back.topics == [(1, "", ""), (last, "gilde ü", "tÖpic/…")]
    assert back.runs == [(1, 0, 3, b"\x00abc\xff"), (last, 0, 1, b""), (1, 3, 2, b"de")]
    assert back.cursors == {(1, "ä b"): 2, (last, ""): many}
    assert back.producers == {many: many}
    assert back.starts == {1: 1}
    assert (back.epoch, back.cut) == (empty.epoch, 0)


def test_what_was_not_committed_does_not_come_back(tmp_path: Path) -> None:
    """A server that dies leaves its last commit behind, and nothing of what came after it."""
    journal, _ = Journal.open(tmp_path, sync="none")
    journal.topic(1, "g", "t")
    journal.run(1, 0, 1, b"a")
    journal.commit()
    journal.run(1, 1, 1, b"b")
    journal.cursor(1, "s", 1)
    journal.close_in_fork()  # as in death: nothing is written any more
    back = recovered_from(tmp_path)
    assert (back.runs, back.cursors) == ([(1, 0, 1, b"a")], {})


def test_the_last_word_in_a_commit_is_written_alone(tmp_path: Path) -> None:
    """A thousand words about one cursor, producer or start cost as much as one."""
    sizes: list[int] = []
    with opened(tmp_path) as (journal, _):
        journal.topic(1, "g", "t")
        for words in (range(999, 1000), range(1000)):
            before = journal.statistics()["bytes"]
            for position in words:
                journal.cursor(1, "s", position)
                journal.producer(7, position + 1)
                journal.trimmed(1, position + len(sizes))
            journal.commit()
            sizes.append(journal.statistics()["bytes"] - before)
            journal.topic(1, "g", "t")
    back = recovered_from(tmp_path)
    assert sizes[0] == sizes[1]
    assert (back.cursors, back.producers) == ({(1, "s"): 999}, {7: 1000})
    assert back.starts == {1: 1000}


def test_what_is_forgotten_stays_forgotten(tmp_path: Path) -> None:
    """A forgotten subscriber or producer is gone, unless it came again after that."""
    with opened(tmp_path) as (journal, _):
        journal.topic(1, "g", "t")
        for name, client in (("gone", 1), ("back", 2)):
            journal.cursor(1, name, 5)
            journal.producer(client, 5)
        journal.commit()
        for name, client in (("gone", 1), ("back", 2)):
            journal.forget(1, name)
            journal.producer(client, 0)
        journal.cursor(1, "back", 6)
        journal.producer(2, 6)
    back = recovered_from(tmp_path)
    assert (back.cursors, back.producers) == ({(1, "back"): 6}, {2: 6})


def test_an_empty_commit_writes_nothing(tmp_path: Path) -> None:
    """A commit with nothing to say does not touch the file."""
    with opened(tmp_path, sync="group") as (journal, _):
        before = journal.statistics()
        journal.commit()
        assert journal.statistics() == before


def test_a_run_that_leaves_a_hole_is_refused(tmp_path: Path) -> None:
    """A run goes on where its topic ends; anything else is an error where it is made."""
    with opened(tmp_path) as (journal, _):
        with pytest.raises(ValueError, match="topic 1: not known"):
            journal.run(1, 0, 1, b"a")
        journal.topic(1, "g", "t")
        journal.run(1, 0, 2, b"ab")
        for base in (0, 1, 3):
            with pytest.raises(ValueError, match="it goes on at 2"):
                journal.run(1, base, 1, b"c")
        journal.trimmed(1, 10)
        journal.run(1, 10, 1, b"k")
    assert recovered_from(tmp_path).runs == [(1, 10, 1, b"k")]


def test_segments_are_begun_and_deleted(tmp_path: Path) -> None:
    """Full segments stay while something of them is wanted, and go when all of it is trimmed."""
    fill(tmp_path, 100, segment_bytes=1000)
    before = segments(tmp_path)
    assert len(before) > 5
    assert len(recovered_from(tmp_path).runs) == 100
    with opened(tmp_path, segment_bytes=1000) as (journal, _):
        journal.trimmed(1, 50)
        journal.commit()
        assert before[0] not in segments(tmp_path)
        assert before[-2] in segments(tmp_path)
        journal.trimmed(1, 100)
        journal.commit()
        assert len(segments(tmp_path)) <= 2
        assert journal.statistics()["segments"] == len(segments(tmp_path))
    back = recovered_from(tmp_path)
    assert (back.runs, back.starts, back.cursors) == ([], {1: 100}, {(1, "reader"): 99})


def test_what_is_forgotten_outlives_the_segment_that_said_so(tmp_path: Path) -> None:
    """A cursor in an old segment stays forgotten when the segment of the forgetting is deleted."""
    with opened(tmp_path, segment_bytes=400) as (journal, _):
        journal.topic(1, "g", "kept")
        journal.topic(2, "g", "trimmed")
        journal.cursor(1, "reader", 1)
        journal.producer(1, 1)
        journal.run(1, 0, 1, bytes(400))
        journal.commit()  # fills the first segment
        journal.forget(1, "reader")
        journal.producer(1, 0)
        journal.run(2, 0, 1, bytes(600))
        journal.commit()  # fills the second
        journal.trimmed(2, 1)
        journal.commit()
        assert [path.stem[-1] for path in segments(tmp_path)] == ["1", "3"]
    back = recovered_from(tmp_path)
    assert (back.cursors, back.producers) == ({}, {})


def test_nothing_is_deleted_before_the_trimming_is_on_disk(tmp_path: Path) -> None:
    """With `interval` a dead segment goes after the next sync: a crash must find it or its end."""
    fill(tmp_path, 20, segment_bytes=500)
    with opened(tmp_path, sync="interval", interval=1000.0) as (journal, _):
        journal.producer(1, 1)
        journal.commit()  # the first commit syncs
        before = segments(tmp_path)
        journal.trimmed(1, 20)
        journal.commit()
        assert segments(tmp_path) == before
        journal.sync_if_due(monotonic() + 1001)
        assert segments(tmp_path) == before[-1:]


def busy_beside_slow(directory: Path, rounds: int) -> None:
    """A busy topic of which the last ten messages are kept, and a slow one that keeps all."""
    with opened(directory, segment_bytes=4000) as (journal, _):
        journal.topic(1, "g", "slow")
        journal.topic(2, "g", "busy")
        for base in range(rounds):
            if base % 30 == 0:
                journal.run(1, base // 30, 1, b"slow %d" % base)
            journal.run(2, base, 1, bytes(100))
            journal.trimmed(2, max(0, base - 9))
            journal.commit()
            assert journal.statistics()["bytes"] < 40_000
            assert journal.statistics()["segments"] < 10


def test_a_slow_topic_does_not_pin_the_files_of_a_busy_one(tmp_path: Path) -> None:
    """Old segments with little that is wanted are merged: the disk holds little more than that."""
    busy_beside_slow(tmp_path, 3000)
    back = recovered_from(tmp_path)
    slow = [run for run in back.runs if run[0] == 1]
    assert slow == [(1, n, 1, b"slow %d" % (n * 30)) for n in range(100)]
    assert [base for topic, base, _, _ in back.runs if topic == 2] == list(range(2990, 3000))
    assert back.topics == [(1, "g", "slow"), (2, "g", "busy")]


def test_an_interrupted_merge_brings_nothing_twice(tmp_path: Path) -> None:
    """A server that dies before it deletes the first of two merged files has each message once."""
    with opened(tmp_path, segment_bytes=2000) as (journal, _):
        journal.topic(1, "g", "slow")
        journal.topic(2, "g", "busy")
        journal.run(1, 0, 1, b"first")
        busy, first = 0, b""
        while segments(tmp_path)[:1] == [tmp_path / "00000001.journal"]:
            first = (tmp_path / "00000001.journal").read_bytes()
            journal.run(2, busy, 1, bytes(100))
            journal.trimmed(2, busy)
            busy += 1
            if busy == 20:
                journal.run(1, 1, 1, b"second")
            journal.commit()
    (tmp_path / "00000001.journal").write_bytes(first)
    slow = [run for run in recovered_from(tmp_path).runs if run[0] == 1]
    assert slow == [(1, 0, 1, b"first"), (1, 1, 1, b"second")]


def test_a_second_server_is_refused(tmp_path: Path) -> None:
    """One server per directory; the other is told where and by whom it is used."""
    with opened(tmp_path):
        with pytest.raises(JournalError, match=f"pid {os.getpid()}") as caught:
            Journal.open(tmp_path)
        assert caught.value.path == str(tmp_path)
    recovered_from(tmp_path)


def test_the_directory_is_its_users_alone(tmp_path: Path) -> None:
    """A directory that is made is 0700, and the files in it are 0600."""
    log = tmp_path / "x" / "log"
    fill(log, 1)
    assert log.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in log.iterdir()} == {0o600}


def test_a_directory_that_cannot_be_is_an_error(tmp_path: Path) -> None:
    """Where no directory can be made, the error names it and has the system's as its cause."""
    (tmp_path / "file").touch()
    with pytest.raises(JournalError, match="cannot be opened") as caught:
        Journal.open(tmp_path / "file" / "log")
    assert isinstance(caught.value.__cause__, OSError)


def test_the_epoch_stays(tmp_path: Path) -> None:
    """A journal has one epoch through reopening and rotation; another journal has another."""
    epochs = set()
    for _ in range(5):
        epochs.add(recovered_from(tmp_path / "a").epoch)
    fill(tmp_path / "a", 60, segment_bytes=1000)
    epochs.add(recovered_from(tmp_path / "a").epoch)
    assert len(epochs) == 1
    assert recovered_from(tmp_path / "b").epoch not in epochs


def test_it_is_reopened_many_times(tmp_path: Path) -> None:
    """A hundred lives of a server add up, in few files."""
    for life in range(100):
        with opened(tmp_path) as (journal, back):
            assert [run[1] for run in back.runs] == list(range(life))
            journal.topic(1, "g", "t")
            journal.run(1, life, 1, b"%d" % life)
    assert len(segments(tmp_path)) == 1


def test_group_syncs_each_commit_and_none_never(tmp_path: Path) -> None:
    """`group` has each batch on disk when commit returns; `none` leaves all to the system."""
    for mode, syncs in (("group", 3), ("none", 0)):
        with opened(tmp_path / mode, sync=mode) as (journal, _):
            for accepted in (1, 2, 3):
                journal.producer(1, accepted)
                journal.commit()
                assert journal.sync_due(monotonic()) is None
            assert journal.statistics()["syncs"] == syncs
            assert journal.statistics()["commits"] == 3


def test_interval_syncs_when_it_is_time(tmp_path: Path) -> None:
    """`interval` says when it wants to sync, does it then, and wants nothing while all is there."""
    with opened(tmp_path, sync="interval", interval=1000.0) as (journal, _):
        assert journal.sync_due(monotonic()) is None
        journal.producer(1, 1)
        journal.commit()  # long after the last sync, of which there is none
        assert (journal.statistics()["syncs"], journal.sync_due(monotonic())) == (1, None)
        journal.producer(1, 2)
        journal.commit()
        due = journal.sync_due(monotonic())
        assert due is not None
        assert 900 < due <= 1000
        journal.sync_if_due(monotonic())
        assert journal.statistics()["syncs"] == 1
        journal.sync_if_due(monotonic() + due)
        assert (journal.statistics()["syncs"], journal.sync_due(monotonic())) == (2, None)
