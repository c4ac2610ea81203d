"""Long lives leave no trace: after hundreds of starts and ends an engine is as it was at first."""

from __future__ import annotations

import gc
import logging
import os
import resource
import signal
from collections.abc import Sequence
from dataclasses import dataclass

import psutil
import pytest

from rustic_ai.core.errors import AgentStartError
from rustic_ai.core.guild import AgentSpec, Guild
from rustic_ai.core.guild.execution import MultiProcessExecutionEngine
from rustic_ai.core.guild.topics import GuildTopics
from rustic_ai.core.testing.agents import MultiplyingAgent, Number, RaisingAgent
from rustic_ai.core.testing.waiting import wait_until
from tests.support import NO_MESSAGES, embedded, spec_of

ROUNDS, FIRST_ROUNDS = 25, 8
STOPPED, KILLED, FAILED = 20, 4, 2
"""In each round; 500, 100 and 50 in all."""
STARTS = STOPPED + KILLED + FAILED
LEAK = 2048
"""Bytes per start from which on memory counts as lost."""
THOUSAND = 1000
FILES_PER_AGENT = 3
OTHER_FILES = 256
PRELOAD = ["rustic_ai.core.testing.agents"]


@dataclass(frozen=True)
class Held:
    """What a process holds; its memory is what the system would get back at its end."""

    descriptors: int
    threads: int
    memory: int

    @classmethod
    def by(cls, process: psutil.Process) -> Held:
        gc.collect()
        memory = process.memory_full_info().uss
        return cls(process.num_fds(), process.num_threads(), memory)


def nursery() -> psutil.Process:
    """Return the nursery of the only engine of this program."""
    (found,) = [
        child
        for child in psutil.Process().children()
        if any(part.startswith("rustic-nursery:") for part in child.cmdline())
    ]
    return found


def agents(count: int) -> list[AgentSpec]:
    return [spec_of(MultiplyingAgent, f"m{n}") for n in range(count)]


def kill(engine: MultiProcessExecutionEngine, names: Sequence[str]) -> None:
    for name in names:
        os.kill(engine.get_process_info("g", name)["pid"], signal.SIGKILL)


def start_and_end(engine: MultiProcessExecutionEngine, guild: Guild) -> None:
    """Start some, of which some fail; kill a few; stop the others."""
    good = agents(STOPPED + KILLED)
    bad = [spec_of(RaisingAgent, f"r{n}") for n in range(FAILED)]
    with pytest.raises(ExceptionGroup, match=f"{FAILED} agents did not start"):
        guild.launch_agents([*good, *bad])
    kill(engine, [spec.id for spec in good[:KILLED]])
    expected = {"RUNNING": STOPPED, "EXITED": KILLED}
    wait_until(lambda: engine.get_engine_stats()["states"] == expected)
    for spec in good:
        guild.remove_agent(spec.id)
    assert engine.get_agents_in_guild("g") == {}


def test_650_starts_and_ends_leave_an_engine_as_it_was(
    free_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    """500 stopped, 100 killed and 50 that failed cost neither descriptors, threads nor memory."""
    caplog.set_level(logging.CRITICAL, "rustic_ai")  # what is logged is kept by pytest
    with (
        MultiProcessExecutionEngine("g", STARTS, preload=PRELOAD) as engine,
        Guild("g", engine, embedded(free_port)) as guild,
    ):
        for _ in range(FIRST_ROUNDS):  # fills caches
            start_and_end(engine, guild)
        watched = [psutil.Process(), nursery()]
        before = [Held.by(process) for process in watched]
        for _ in range(ROUNDS - FIRST_ROUNDS):
            start_and_end(engine, guild)
        after = [Held.by(process) for process in watched]
        for was, now in zip(before, after, strict=True):
            assert (now.descriptors, now.threads) == (was.descriptors, was.threads)
            assert now.memory - was.memory < LEAK * STARTS * (ROUNDS - FIRST_ROUNDS)
        guild.launch_agent(spec_of(MultiplyingAgent, "last"))
        inbox = GuildTopics.get_agent_inbox("last")
        assert guild.request(Number(value=2), inbox, timeout=20).payload["value"] == 4


def test_20_engines_in_a_row_leave_a_program_as_it_was() -> None:
    """Each with agents that end in all ways; descriptors and threads are as before the first."""
    program = psutil.Process()
    before = Held.by(program)
    for n in range(20):
        with (
            MultiProcessExecutionEngine("g", 4, log_forwarding=n % 2 == 0) as engine,
            Guild("g", engine, NO_MESSAGES) as guild,
        ):
            guild.launch_agents(agents(3))
            kill(engine, ["m0"])
            guild.remove_agent("m1")
            with pytest.raises(AgentStartError):
                guild.launch_agent(spec_of(RaisingAgent, "r"))
        after = Held.by(program)
        assert (after.descriptors, after.threads) == (before.descriptors, before.threads)


def test_a_thousand_agents_in_one_engine() -> None:
    """All are ready and all stop; where the system allows too few files the error names that."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    enough = hard == resource.RLIM_INFINITY or hard >= OTHER_FILES + FILES_PER_AGENT * THOUSAND
    with (
        MultiProcessExecutionEngine("g", THOUSAND, preload=PRELOAD) as engine,
        Guild("g", engine, NO_MESSAGES) as guild,
    ):
        if not enough:
            with pytest.raises(ExceptionGroup) as caught:
                guild.launch_agents(agents(THOUSAND))
            assert all("RLIMIT_NOFILE" in str(error) for error in caught.value.exceptions)
            return
        guild.launch_agents(agents(THOUSAND))
        assert engine.get_engine_stats()["alive_agents"] == THOUSAND
        guild.shutdown()
        assert engine.get_agents_in_guild("g") == {}
