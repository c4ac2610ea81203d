"""Where output goes while a guild runs: standard output is for the result alone."""

from __future__ import annotations

import os
import select
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rustic_ai.core.messaging.core.stop_signal import StopSignal


@contextmanager
def result_kept_apart() -> Iterator[int]:
    """Send what agents and libraries print to standard error while the block lasts.

    Yields:
        The descriptor of the real standard output.
    """
    with _kept(1) as (real,):
        os.dup2(2, 1)
        yield real


@contextmanager
def relayed(show: Callable[[str], None]) -> Iterator[None]:
    """Pass every line that anybody writes to descriptors 1 and 2 to `show`, on another thread.

    A live display can so show it above itself instead of being torn by it. Agents inherit the
    descriptors; what they wrote by the end of the block has been shown when it is left.
    """
    reader, writer = os.pipe()
    stop = StopSignal()
    thread = threading.Thread(target=_relay, args=(reader, stop, show), name="rustic-output")
    thread.start()
    try:
        with _kept(1, 2):
            os.dup2(writer, 1)
            os.dup2(writer, 2)
            os.close(writer)
            yield
    finally:
        stop.set()  # the end of the pipe may be late: others may hold it
        thread.join()
        stop.close()
        os.close(reader)


@contextmanager
def _kept(*numbers: int) -> Iterator[list[int]]:
    """Give descriptors back as they were at the end of the block; yields copies of them."""
    sys.stdout.flush()
    sys.stderr.flush()
    copies = [os.dup(number) for number in numbers]
    try:
        yield copies
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, copy in zip(numbers, copies, strict=True):
            os.dup2(copy, number)
            os.close(copy)


def _relay(reader: int, stop: StopSignal, show: Callable[[str], None]) -> None:
    os.set_blocking(reader, False)
    pending = b""
    while True:
        select.select([reader, stop.fileno()], [], [])
        try:
            data = os.read(reader, 65536)
        except BlockingIOError:  # nothing is left, so it was the stop
            data = b""
        if not data:
            break
        *lines, pending = (pending + data).split(b"\n")
        for line in lines:
            show(line.decode(errors="replace"))
    if pending:
        show(pending.decode(errors="replace"))
