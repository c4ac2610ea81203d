"""However a program ends, nothing of its engine is left two seconds later.

One case is not covered, and cannot be: the nursery ended by SIGKILL while an agent has a daemon in
a session of its own. Nobody knows of that one then (decision 0007).
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest

from rustic_ai.core.testing.leaks import LeakCheck
from rustic_ai.core.testing.waiting import wait_until
from tests.support import PROGRAMS, is_running, run_program

LIMIT = 2.0
"""Seconds after which nothing may be left."""
PROCESSES = 12
"""The program, its nursery and message server; six agents; two children and a daemon of theirs."""


class Program:
    """A running `chaos.py`, and what there was before it."""

    def __init__(self, check: LeakCheck, port: int, method: str, what: str) -> None:
        self._check = check
        self._before = check.look()
        self.process = subprocess.Popen(
            [sys.executable, str(PROGRAMS / "chaos.py"), str(port), method, what],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            start_new_session=True,
        )
        self.agents: dict[str, int] = {}
        self.theirs: dict[str, list[int]] = {}

    def wait_until_ready(self) -> None:
        """Wait until every agent does its worst."""
        facts = self.hear()
        self.agents, self.theirs = facts["agents"], facts["theirs"]

    def hear(self) -> dict[str, Any]:
        """Return what the program says next."""
        assert self.process.stdout is not None
        facts: dict[str, Any] = json.loads(self.process.stdout.readline())
        return facts

    def tell(self, word: str) -> None:
        """Have it do something."""
        assert self.process.stdin is not None
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()

    def interrupt(self) -> None:
        """Press Ctrl-C: the signal goes to all of the program's process group."""
        os.killpg(self.process.pid, signal.SIGINT)

    def nursery(self) -> int:
        """Return the pid of its nursery."""
        return next(
            child.pid
            for child in psutil.Process(self.process.pid).children()
            if any(part.startswith("rustic-nursery:") for part in child.cmdline())
        )

    def running(self) -> set[int]:
        """Return the pids of all that it and its descendants started, whoever their parent is."""
        return self._check.look().processes.keys() - self._before.processes.keys()

    def expect_all(self) -> None:
        """Wait until all can be seen: a process that just runs another file shows no mark."""
        wait_until(lambda: len(self.running()) == PROCESSES)

    def expect_only(self, *pids: int) -> None:
        """Wait for every process but these to be gone, within the limit."""
        wait_until(lambda: self.running() <= set(pids), LIMIT)

    def expect_nothing(self) -> None:
        """Collect it, and expect no process, shared memory, socket or file of it within the limit.

        The limit counts from the program's own end.
        """
        self.process.wait(timeout=20)
        self._close()
        assert self._check.left_behind(self._before, LIMIT) == []

    def _close(self) -> None:
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()

    def clean_up(self) -> None:
        """End what a failed test has left, so that the next one does not fail for it."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._close()
        for pid in self.running():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


Start = Callable[..., Program]


@pytest.fixture(params=["forkserver", "spawn"])
def method(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def start(leak_check: LeakCheck, free_port: int, method: str) -> Iterator[Start]:
    """Start the program with what is asked for."""
    programs: list[Program] = []

    def start_it(what: str = "everything") -> Program:
        programs.append(Program(leak_check, free_port, method, what))
        return programs[0]

    yield start_it
    for program in programs:
        program.clean_up()


@pytest.fixture
def program(start: Start) -> Program:
    """Start it with the whole cast."""
    program = start()
    program.wait_until_ready()
    program.expect_all()
    return program


# It ends by itself


def test_shutdown(program: Program) -> None:
    """When `shutdown` has returned, the program is alone."""
    program.tell("shutdown")
    assert program.hear() == {"down": True}
    program.expect_only(program.process.pid)
    program.tell("return")
    program.expect_nothing()
    assert program.process.returncode == 0


@pytest.mark.parametrize(("word", "code"), [("return", 0), ("raise", 1), ("exit", 3)])
def test_an_end_without_shutdown(program: Program, word: str, code: int) -> None:
    """A normal end, an exception that nobody catches and `sys.exit` keep their exit code."""
    program.tell(word)
    program.expect_nothing()
    assert program.process.returncode == code


def test_os_exit(program: Program) -> None:
    """`os._exit` calls nothing, and yet all are gone."""
    program.tell("vanish")
    program.expect_nothing()
    assert program.process.returncode == 4


# It is ended


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_a_deadly_signal(program: Program, number: signal.Signals) -> None:
    """A signal that ends the program at once ends the rest, too."""
    program.process.send_signal(number)
    program.expect_nothing()
    assert program.process.returncode == -number


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c(program: Program, times: int) -> None:
    """Ctrl-C reaches the program alone, which ends the agents; pressed again, it ends them, too."""
    program.interrupt()
    assert program.hear() == {"idle": program.agents["idle"]}
    program.expect_all()
    program.tell("go on")
    if times == 2:
        wait_until(lambda: not is_running(program.agents["idle"]))  # the shutdown has begun
        program.interrupt()
    program.expect_nothing()
    assert program.process.returncode != 0


def test_sigkill_while_every_agent_is_stopped(program: Program) -> None:
    """Agents that cannot do anything, not even obey a signal, are gone, too."""
    for pid in program.agents.values():
        os.kill(pid, signal.SIGSTOP)
    program.process.kill()
    program.expect_nothing()


def test_sigkill_while_a_fork_lives_on(program: Program) -> None:
    """A forked copy of the program lives as long as it likes, and keeps nothing else alive."""
    program.tell("fork")
    fork = program.hear()["fork"]
    program.process.kill()
    program.process.wait()
    program.expect_only(fork)
    assert is_running(fork)
    os.kill(fork, signal.SIGKILL)
    program.expect_nothing()


def test_sigkill_where_a_thread_that_ended_made_the_engine(start: Start) -> None:
    """Agents outlive the thread that launched them, and not the program."""
    program = start("in-thread")
    program.wait_until_ready()
    program.tell("ask")
    assert program.hear() == {"idle": program.agents["idle"]}
    program.expect_all()
    program.process.kill()
    program.expect_nothing()


def test_sigkill_in_the_middle_of_sixty_launches(start: Start) -> None:
    """Agents that are ready, that are starting and that are only asked for are gone."""
    program = start("sixty")
    assert program.process.stdout is not None
    said = program.process.stdout.readline()
    assert (said, program.process.wait()) == ("", -signal.SIGKILL)
    program.expect_nothing()


# Only a part of it ends


def test_the_children_of_a_killed_agent(program: Program) -> None:
    """What an agent has started in its group goes with it; all others stay."""
    gone = {program.agents["parent"], *program.theirs["parent"]}
    assert len(gone) == 3
    others = program.running() - gone
    os.kill(program.agents["parent"], signal.SIGKILL)
    program.expect_only(*others)
    assert program.running() == others
    program.process.kill()
    program.expect_nothing()


def test_shutdown_while_twenty_launch_and_half_of_them_hang(start: Start) -> None:
    """Agents that hold the GIL in their constructor are ended; whoever waits for them is told."""
    program = start("hanging")
    assert program.hear()["failed"] >= 10
    program.expect_only(program.process.pid)
    program.tell("return")
    program.expect_nothing()
    assert program.process.returncode == 0


def test_the_nursery_is_killed_and_then_shutdown(start: Start) -> None:
    """Without their nursery agents are stopped just the same."""
    program = start("no-daemon")
    program.wait_until_ready()
    os.kill(program.nursery(), signal.SIGKILL)
    program.tell("shutdown")
    assert program.hear() == {"down": True}
    program.expect_only(program.process.pid)
    program.tell("return")
    program.expect_nothing()
    assert program.process.returncode == 0


@pytest.mark.parametrize("adopted", [False, True])
def test_the_nursery_is_killed_and_then_the_program(start: Start, adopted: bool) -> None:
    """The kernel, or the nursery that has adopted the agents, ends them."""
    program = start("no-daemon")
    program.wait_until_ready()
    first = program.nursery()
    os.kill(first, signal.SIGKILL)
    if adopted:
        wait_until(lambda: not is_running(first))
        program.tell("ask")
        assert program.hear() == {"idle": program.agents["idle"]}
    program.process.kill()
    program.expect_nothing()


# What is not its own


def test_the_programs_own_things_stay(free_port: int, method: str) -> None:
    """Launch, stop and shutdown touch no child, signal handler or start method of the program."""
    seen = json.loads(run_program("own_children.py", free_port, method))
    assert seen == dict.fromkeys(("launch", "stop", "shutdown", "exit code", "own to end"), True)
