"""From launch to ready."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.process.bare_fork import BareFork
from benchmarks.process.guilds import GUILD, NO_MESSAGES, guild_for, specs
from benchmarks.process.load import AGENT_MODULE
from benchmarks.process.report import Goal, Row, Sample
from benchmarks.process.spawned import pool_seconds, spawned
from rustic_ai.core.guild.execution import MultiProcessExecutionEngine
from rustic_ai.core.guild.spec import GuildSpec

_FORKED = (1, 8, 32, 100, 300)
_MANY = 100


@dataclass(frozen=True, slots=True)
class _Case:
    """So many agents, one after another or all at once."""

    count: int
    overlapped: bool

    def __str__(self) -> str:
        if self.count == 1:
            return "1 agent"
        return f"{self.count} agents, {'overlapped' if self.overlapped else 'one by one'}"


def measure(*, full: bool) -> list[Row]:
    """Measure launches; milliseconds per agent."""
    repeats = 5 if full else 3
    return [
        _first_agent(repeats),
        *_forked(repeats),
        *_spawned((1, 8, 32) if full else (1, 8), repeats - 1),
    ]


def launch_seconds(
    case: _Case, start_method: str = "forkserver", *, preload: Sequence[str] = ()
) -> float:
    """Return how long a guild of ours takes."""
    settings: dict[str, Any] = {"start_method": start_method, "preload": preload}
    with guild_for(case.count, **settings) as (_, guild):
        wanted = specs(case.count)
        started = time.perf_counter()
        if case.overlapped:
            guild.launch_agents(wanted)
        else:
            for spec in wanted:
                guild.launch_agent(spec)
        return time.perf_counter() - started


def _first_agent(repeats: int) -> Row:
    """The engine's constructor, the start of its nursery, and one agent."""
    ours = []
    for _ in range(repeats):
        started = time.perf_counter()
        with MultiProcessExecutionEngine(GUILD, 1) as engine:
            _run_one(engine)
            ours.append(time.perf_counter() - started)
    peer = [_spawn_seconds(_Case(1, overlapped=False)) for _ in range(repeats)]
    return Row(
        "new engine to its first agent ready",
        "ms",
        Sample(ours).times(1e3),
        "multiprocessing spawn, 1 child",
        Sample(peer).times(1e3),
    )


def _run_one(engine: MultiProcessExecutionEngine) -> None:
    engine.run_agent(GuildSpec(id=GUILD, name=GUILD), specs(1)[0], NO_MESSAGES)


def _forked(repeats: int) -> list[Row]:
    rows = []
    with BareFork() as fork:
        for count in _FORKED:
            for overlapped in (False, True) if count > 1 else (False,):
                case = _Case(count, overlapped)
                rows += _beside_bare_fork(fork, case, repeats if count <= _MANY else 1)
    return rows


def _beside_bare_fork(fork: BareFork, case: _Case, repeats: int) -> list[Row]:
    """Compare with the same weight, the agent's module preloaded; and, for many, without.

    The goals are for preloaded ones: there, our children and the peer's have the same modules.
    """
    ours, cold, bare, empty = [], [], [], []
    is_goal = case == _Case(_MANY, overlapped=True)
    for _ in range(repeats):  # in turns, so that other load meets all of them
        ours.append(launch_seconds(case, preload=[AGENT_MODULE]))
        bare.append(fork.seconds(case.count, overlapped=case.overlapped))
        if is_goal:
            cold.append(launch_seconds(case))
            empty.append(fork.seconds(case.count, overlapped=case.overlapped, build=False))
    what, name = f"nursery: {case}", "bare fork, agent built"
    if not is_goal:
        return [_row(what, case.count, ours, name, bare)]
    not_preloaded = f"{what}, their module not preloaded"
    peer = [_spawn_seconds(case)]
    return [
        _row(what, case.count, ours, name, bare, Goal.times_peer(2)),
        _row(what, case.count, ours, "bare fork, nothing built", empty),
        _row(what, case.count, ours, "multiprocessing spawn", peer, Goal.better_by(30)),
        _row(not_preloaded, case.count, cold, name, bare),
        _row(not_preloaded, case.count, cold, "multiprocessing spawn", peer),
    ]


def _spawned(counts: tuple[int, ...], repeats: int) -> list[Row]:
    rows = []
    for count in counts:
        for overlapped in (False, True) if count > 1 else (False,):
            case = _Case(count, overlapped)
            ours, peer, forked, pool = [], [], [], []
            for _ in range(repeats):
                ours.append(launch_seconds(case, "spawn"))
                forked.append(launch_seconds(case))
                peer.append(_spawn_seconds(case))
                if overlapped:
                    pool.append(pool_seconds(count))
            name = "multiprocessing spawn"
            rows.append(_row(f"nursery: {case}", count, forked, name, peer))
            if pool:
                rows.append(
                    _row(f"nursery: {case}", count, forked, "ProcessPoolExecutor, spawn", pool)
                )
            rows.append(_row(f"start_method='spawn': {case}", count, ours, name, peer))
    return rows


def _spawn_seconds(case: _Case) -> float:
    with spawned(case.count, overlapped=case.overlapped) as (seconds, _):
        return seconds


def _row(
    what: str,
    count: int,
    ours: list[float],
    peer_name: str,
    peer: list[float],
    goal: Goal | None = None,
) -> Row:
    factor = 1e3 / count
    return Row(
        what, "ms each", Sample(ours).times(factor), peer_name, Sample(peer).times(factor), goal
    )
