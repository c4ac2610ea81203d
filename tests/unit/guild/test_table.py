"""The shared table, and what else processes share as memory."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest

from rustic_ai.core.errors import EngineError
from rustic_ai.core.guild.execution.multiprocess.crash_file import (
    LastLines,
    clear_stacks,
    create_crash_file,
    read_last_lines,
    read_stacks,
)
from rustic_ai.core.guild.execution.multiprocess.pulse import TablePulse, seen_in
from rustic_ai.core.guild.execution.multiprocess.table import Record, SharedTable

RECORD = Record(3, 2, 4711, 2, -9, 10, 20, 30, 40_000, (0, 0, 0))


@pytest.fixture
def table() -> Iterator[SharedTable]:
    table = SharedTable.create(4)
    yield table
    table.close()


def look(table: SharedTable) -> SharedTable:
    """Open the table as another process would."""
    return SharedTable(os.open(f"/proc/self/fd/{table.fileno()}", os.O_RDONLY), writable=False)


def test_what_is_written_is_read(table: SharedTable) -> None:
    """Records come back as they were, also where the exit code is not known; empty is None."""
    table.write(1, RECORD)
    table.write(2, replace(RECORD, exitcode=None))
    other = look(table)
    assert other.read(0) is None
    assert other.read(1) == RECORD
    assert other.read(2) == replace(RECORD, exitcode=None)
    assert other.used == 3
    assert (other.engine_pid, other.slots) == (os.getpid(), 4)
    table.clear(1)
    assert other.read(1) is None
    other.close()


def test_readers_cannot_write(table: SharedTable) -> None:
    """Whoever attaches can change nothing."""
    other = look(table)
    with pytest.raises(TypeError):
        other.write(0, RECORD)
    other.close()


def test_a_writer_at_full_speed_is_never_misread(table: SharedTable) -> None:
    """Reads beside a writer see one record or the other, never half of each."""
    first, second = RECORD, Record(9, 4, 99, 9, 0, 99, 99, 99, 99, (9, 9, 9))
    table.write(0, first)
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            table.write(0, second)
            table.write(0, first)

    writer = threading.Thread(target=write)
    writer.start()
    other = look(table)
    seen = {other.read(0) for _ in range(20_000)}
    stop.set()
    writer.join()
    other.close()
    assert seen <= {first, second}


def test_a_writer_that_died_is_noticed(table: SharedTable) -> None:
    """A record that was never finished is an error, not nonsense and not a hang."""
    table.write(0, RECORD)
    os.pwrite(table.fileno(), b"\xff" * 8, 64 + 20)
    with pytest.raises(EngineError, match="never finished"):
        table.read(0)


def test_texts_of_any_size_and_their_blocks_again(table: SharedTable) -> None:
    """Texts come back; a block is used again; who comes too late is told nothing wrong."""
    places = [table.put_text(bytes([n]) * size) for n, size in enumerate((0, 1, 256, 70_000), 1)]
    assert [len(table.text(place) or b"") for place in places] == [0, 1, 256, 70_000]
    table.drop_text(places[3])
    again = table.put_text(b"x" * 66_000)
    assert again[0] == places[3][0]
    assert table.text(places[3]) is None
    size = os.fstat(table.fileno()).st_size
    for _ in range(100):
        table.drop_text(again)
        again = table.put_text(b"y" * 66_000)
    assert os.fstat(table.fileno()).st_size == size


def test_other_files_are_refused() -> None:
    """What is no table, or too short for one, is said to be none."""
    fd = os.memfd_create("other")
    for content in (b"", b"nonsense" * 100):
        os.pwrite(fd, content, 0)
        with pytest.raises(EngineError, match="no table"):
            SharedTable(fd, writable=False)
    os.close(fd)


def test_the_pulse_of_an_agent(table: SharedTable) -> None:
    """Others see since when an agent handles which message, and how many it has handled."""
    cells = table.cells(1)
    pulse = TablePulse(table, 1)
    assert seen_in(cells)["heartbeat_age"] is None
    pulse.beat()
    pulse.begin((1 << 64) - 1)
    seen = seen_in(cells)
    assert seen["message_id"] == (1 << 64) - 1
    assert 0 <= seen["busy_for"] < 10
    assert 0 <= seen["heartbeat_age"] < 10
    pulse.end(2)
    assert seen_in(cells) | {"heartbeat_age": 0} == {
        "heartbeat_age": 0,
        "busy_for": None,
        "message_id": None,
        "handled": 1,
        "errors": 2,
    }
    cells.release()


def test_the_last_lines_are_kept() -> None:
    """However much is written, the newest whole lines are there."""
    fd = create_crash_file()
    assert read_last_lines(fd) == ""
    lines = LastLines(fd)
    lines.add(b"first\n")
    assert read_last_lines(fd) == "first"
    for n in range(5000):
        lines.add(f"line {n} \N{SNOWMAN}\n".encode())
    assert read_last_lines(fd, 3).split("\n") == [
        f"line {n} \N{SNOWMAN}" for n in range(4997, 5000)
    ]
    assert len(read_last_lines(fd, 10_000).split("\n")) > 400
    lines.add(b"z" * 100_000)
    assert set(read_last_lines(fd)) <= {"z"}
    os.close(fd)


def test_stacks_can_be_taken_more_than_once() -> None:
    """What was read is cleared, and what comes next stands at the start again."""
    fd = create_crash_file()
    os.lseek(fd, 8192, os.SEEK_SET)
    for text in (b"a longer text of stacks", b"short"):
        os.write(fd, text)
        assert read_stacks(fd) == text.decode()
        clear_stacks(fd)
    assert read_stacks(fd) == ""
    os.close(fd)
