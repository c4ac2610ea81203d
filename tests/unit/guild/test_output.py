"""What agents print."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Iterator

import pytest

from rustic_ai.core.guild.execution.multiprocess.crash_file import (
    LastLines,
    create_crash_file,
    read_last_lines,
)
from rustic_ai.core.guild.execution.multiprocess.output import AttributedStream


@pytest.fixture
def pipe() -> Iterator[tuple[int, io.TextIOWrapper]]:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    with os.fdopen(writer, "w", encoding="ascii") as stream:
        yield reader, stream
    os.close(reader)


def test_every_line_carries_the_prefix(pipe: tuple[int, io.TextIOWrapper]) -> None:
    """Lines are written whole, however they come; what was begun is written at the end."""
    reader, target = pipe
    stream = AttributedStream(target, "[a 1] ")
    print("one", 2, file=stream)
    print("three\nfour", file=stream, end="")
    assert os.read(reader, 1000) == b"[a 1] one 2\n[a 1] three\n"
    stream.finish()
    stream.finish()
    assert os.read(reader, 1000) == b"[a 1] four\n"


def test_threads_do_not_mix_their_lines(pipe: tuple[int, io.TextIOWrapper]) -> None:
    """A line that one thread has begun is not ended by another."""
    reader, target = pipe
    stream = AttributedStream(target, "> ")
    stream.write("mine ")
    thread = threading.Thread(target=lambda: stream.write("other\n"))
    thread.start()
    thread.join()
    stream.write("goes on\n")
    assert os.read(reader, 1000) == b"> other\n> mine goes on\n"


def test_it_is_a_stream_like_the_one_beneath(pipe: tuple[int, io.TextIOWrapper]) -> None:
    """Code that asks a standard stream for its properties gets them; text without bytes is kept."""
    reader, target = pipe
    crash = create_crash_file()
    stream = AttributedStream(target, "", LastLines(crash))
    assert stream.fileno() == target.fileno()
    assert stream.encoding == "ascii"
    assert not stream.isatty()
    assert stream.writable()
    stream.write("snow \N{SNOWMAN}\n")
    assert os.read(reader, 1000) == b"snow \\u2603\n"
    assert read_last_lines(crash) == "snow \N{SNOWMAN}"
    stream.buffer.write(b"raw")
    stream.buffer.flush()
    assert os.read(reader, 1000) == b"raw"
    os.close(crash)
