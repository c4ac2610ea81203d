"""From `kill -9` to noticed, to ready again, and to an answer."""

from __future__ import annotations

import os
import queue
import select
import signal
import time

from benchmarks.process.bare_fork import BareFork
from benchmarks.process.guilds import GUILD, guild_for, pids_of, specs, with_messages
from benchmarks.process.report import Goal, Row, Sample
from benchmarks.process.spawned import spawned
from rustic_ai.core.guild import Guild
from rustic_ai.core.guild.execution import MultiProcessExecutionEngine
from rustic_ai.core.guild.execution.stats import AgentEvent, AgentState
from rustic_ai.core.guild.topics import GuildTopics

_AT_ONCE = {"restart": "permanent", "intensity": 1_000_000, "backoff": 0, "jitter": 0}
_PATIENCE = 20.0


def measure(*, full: bool) -> list[Row]:
    """Measure deaths, one after another."""
    deaths = 60 if full else 25
    ready, answers = _back_again(deaths)
    peer = Sample([_spawn_again() for _ in range(5)]).times(1e3)
    name = "multiprocessing: sentinel, spawn"
    return [
        Row(
            "kill -9 to noticed, by a listener of the engine",
            "ms",
            _noticed(deaths),
            "bare pidfd, fork of equal weight",
            _noticed_by_pidfd(deaths),
            Goal.times_peer(2),
        ),
        Row("kill -9 to ready again, no backoff", "ms", ready, name, peer),
        Row("kill -9 to an answer by the new process", "ms", answers, name, peer, Goal.under(20)),
    ]


class _Ears:
    """What an engine tells, with the time at which it was heard."""

    def __init__(self, engine: MultiProcessExecutionEngine) -> None:
        self._heard: queue.SimpleQueue[tuple[float, AgentEvent]] = queue.SimpleQueue()
        engine.add_event_listener(lambda event: self._heard.put((time.perf_counter(), event)))

    def time_of(self, agent_id: str, state: AgentState) -> float:
        """Wait until an agent is said to be in a state; returns when."""
        while True:
            heard_at, event = self._heard.get(timeout=_PATIENCE)
            if (event.agent_id, event.state) == (agent_id, state):
                return heard_at


def _noticed(deaths: int) -> Sample:
    with guild_for(deaths) as (engine, guild):
        wanted = specs(deaths)
        guild.launch_agents(wanted)
        ears = _Ears(engine)
        times = []
        for spec, pid in zip(wanted, pids_of(engine), strict=True):
            killed = _kill(pid)
            times.append(ears.time_of(spec.id, AgentState.EXITED) - killed)
    return Sample(times).times(1e3)


def _noticed_by_pidfd(deaths: int) -> Sample:
    times = []
    with BareFork() as fork, fork.children(deaths, overlapped=True) as (_, pids):
        for pid in pids:
            sentinel = os.pidfd_open(pid)
            poll = select.poll()
            poll.register(sentinel, select.POLLIN)
            killed = _kill(pid)
            poll.poll(_PATIENCE * 1000)
            times.append(time.perf_counter() - killed)
            os.close(sentinel)
    return Sample(times).times(1e3)


def _back_again(deaths: int) -> tuple[Sample, Sample]:
    """Return times to ready, and to the answer to a message sent once it was."""
    ready, answered = [], []
    with guild_for(1, with_messages(), restart_policy=_AT_ONCE) as (engine, guild):
        (spec,) = specs(1)
        guild.launch_agent(spec)
        _ask(guild, spec.id)
        ears = _Ears(engine)
        for _ in range(deaths):
            (pid,) = pids_of(engine)
            killed = _kill(pid)
            ready.append(ears.time_of(spec.id, AgentState.RUNNING) - killed)
            _ask(guild, spec.id)
            answered.append(time.perf_counter() - killed)
            assert engine.get_process_info(GUILD, spec.id)["pid"] != pid
    return Sample(ready).times(1e3), Sample(answered).times(1e3)


def _spawn_again() -> float:
    with spawned(1, overlapped=False) as (_, (child,)):
        assert child.process.pid is not None
        killed = _kill(child.process.pid)
        child.process.join()
        with spawned(1, overlapped=False):
            return time.perf_counter() - killed


def _ask(guild: Guild, agent_id: str) -> None:
    guild.request({"say": "you"}, GuildTopics.get_agent_inbox(agent_id), timeout=_PATIENCE)


def _kill(pid: int) -> float:
    """Kill a process; returns when it was."""
    now = time.perf_counter()
    os.kill(pid, signal.SIGKILL)
    return now
