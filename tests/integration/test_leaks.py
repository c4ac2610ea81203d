"""The leak check finds what is left, whoever its parent is by then."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

from rustic_ai.core.testing.leaks import LeakCheck
from rustic_ai.core.testing.waiting import wait_until

DAEMON = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"],
                         stdin=0, stdout=subprocess.DEVNULL, start_new_session=True)
print(child.pid)
"""


def test_what_is_left_is_named(leak_check: LeakCheck, tmp_path: Path) -> None:
    """A process, a thread, a descriptor and a file are told until they are gone."""
    check = LeakCheck((tmp_path,), mark=leak_check.mark)
    before = check.look()
    assert check.left_behind(before) == []
    end = threading.Event()
    thread = threading.Thread(target=end.wait, name="leaky")
    thread.start()
    sock = socket.socket()
    (tmp_path / "left").write_text("")
    process = subprocess.Popen(
        [sys.executable, "-c", "print(flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.readline()  # `Popen` returns while the kernel still sets its environment up
    left = "\n".join(check.left_behind(before, timeout=0))
    for words in (f"process {process.pid}", "thread leaky", "file descriptors", "left"):
        assert words in left
    process.communicate(b"\n")
    sock.close()
    (tmp_path / "left").unlink()
    end.set()
    thread.join()
    assert check.left_behind(before) == []


def test_a_process_that_changed_its_parent_is_found(leak_check: LeakCheck) -> None:
    """A process whose parent has ended is still known as ours."""
    before = leak_check.look()
    reader, writer = os.pipe()
    out = subprocess.check_output([sys.executable, "-c", DAEMON], stdin=reader, text=True)
    pid = int(out)
    assert pid in leak_check.look().processes
    os.kill(pid, signal.SIGKILL)
    os.close(reader)
    os.close(writer)
    wait_until(lambda: pid not in leak_check.look().processes)
    assert leak_check.left_behind(before) == []


def test_what_is_left_can_be_ended(leak_check: LeakCheck) -> None:
    """Also what is stopped; what was there before goes on."""
    stubborn = [sys.executable, "-c", "print(flush=True); input()"]
    started: list[subprocess.Popen[bytes]] = []

    def begin() -> subprocess.Popen[bytes]:
        process = subprocess.Popen(stubborn, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        started.append(process)
        assert process.stdout is not None
        process.stdout.readline()
        return process

    try:
        earlier = begin()
        before = leak_check.look()
        os.kill(begin().pid, signal.SIGSTOP)
        leak_check.end_left(before)
        assert leak_check.left_behind(before, timeout=0) == ["2 file descriptors"]
        assert earlier.poll() is None
    finally:
        for process in started:
            process.communicate(b"\n")
