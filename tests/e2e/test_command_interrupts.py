"""The command at a terminal, and interrupted."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rustic_ai.core.testing.waiting import wait_until
from tests.e2e.command import COMMAND, ROOT, start


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["ctrl-c", "term"]
)
def test_one_interrupt_finishes(
    guild_file: Callable[..., Path], number: signal.Signals, code: int
) -> None:
    """Ctrl-C, or SIGTERM, ends the guild in good order."""
    with start("run", guild_file("Sleeper")) as process:
        assert process.stderr is not None
        wait_until(lambda: "sleeper ready" in process.stderr.readline())  # type: ignore[union-attr]
        process.send_signal(number)
        _, err = process.communicate(timeout=20)
    assert process.returncode == code
    assert "finishing; Ctrl-C again to terminate" in err
    assert "Traceback" not in err


def test_three_interrupts_kill(guild_file: Callable[..., Path]) -> None:
    """An agent that does not stop is terminated by the second Ctrl-C and killed by the third."""
    with start("run", guild_file("Stubborn")) as process:
        assert process.stderr is not None
        wait_until(lambda: process.stderr.readline().endswith(" stubborn\n"))  # type: ignore[union-attr]
        began = time.monotonic()
        for said in ("finishing", "terminating", "killing"):
            process.send_signal(signal.SIGINT)
            wait_until(lambda: said in process.stderr.readline())  # type: ignore[union-attr]  # noqa: B023
        assert process.wait(timeout=20) == 130
    assert time.monotonic() - began < 8


def start_on_terminal(file: Path) -> tuple[subprocess.Popen[bytes], int]:
    """Start `run` with a terminal as its stderr; return it and our side of the terminal."""
    main, side = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, "run", str(file)],
        stdout=subprocess.PIPE,
        stderr=side,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "TERM": "xterm",
            "COLUMNS": "100",
        },
        cwd=ROOT,
        start_new_session=True,
    )
    os.close(side)
    return process, main


def seen_on(terminal: int, until: str = "") -> str:
    """Return what comes to a terminal, to its end or to a text."""
    seen = b""
    while not until or until.encode() not in seen:
        if not select.select([terminal], [], [], 20)[0]:
            break
        try:
            seen += os.read(terminal, 65536)
        except OSError:  # the other side is closed, and everything has been read
            break
    return seen.decode()


def test_on_a_terminal_it_is_live(guild_file: Callable[..., Path]) -> None:
    """On a terminal each agent has a line, progress a bar, and the cursor comes back."""
    process, terminal = start_on_terminal(guild_file("Finisher"))
    with process:
        text = seen_on(terminal)
        out, _ = process.communicate(timeout=40)
    os.close(terminal)
    assert process.returncode == 0
    assert json.loads(out) == {"answer": 42}
    assert "finisher" in text
    assert "running" in text
    assert "20/20" in text
    assert "\x1b[?25l" in text
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")


def test_prints_do_not_tear_the_live_lines(guild_file: Callable[..., Path]) -> None:
    """On a terminal what an agent prints has lines of its own above those of the agents."""
    process, terminal = start_on_terminal(guild_file("Talker"))
    with process:
        text = seen_on(terminal)
        process.communicate(timeout=40)
    os.close(terminal)
    assert process.returncode == 0
    for n in range(20):
        line = rf"\[talker \d+\] line {n} of the talker\r\n"
        assert re.search(rf"(\n|\x1b\[2K){line}", text)


def test_ctrl_c_on_a_terminal(guild_file: Callable[..., Path]) -> None:
    """SIGINT to the whole process group ends the guild in good order and frees the terminal."""
    process, terminal = start_on_terminal(guild_file("Sleeper"))
    with process:
        seen_on(terminal, until="running")
        os.killpg(process.pid, signal.SIGINT)
        text = seen_on(terminal)
        assert process.wait(timeout=20) == 130
    os.close(terminal)
    assert "finishing; Ctrl-C again to terminate" in text
    assert "Traceback" not in text
    assert text.rstrip().endswith("\x1b[?25h")
