"""From the wish that all stop to the end of the last process, the nursery included."""

from __future__ import annotations

import time

from benchmarks.process.guilds import guild_for, specs
from benchmarks.process.report import Goal, Row, Sample
from benchmarks.process.spawned import spawned

_PEERS = 8


def measure(*, full: bool) -> list[Row]:
    """Measure the shutdown of engines with few and many agents."""
    rows = []
    for count in (1, 8, 100):
        ours = Sample([_seconds(count) for _ in range(5 if full else 3)]).times(1e3)
        goal = Goal.under(300) if count == 100 else None
        what = f"shutdown of an engine with {count} agent{'s' if count > 1 else ''}"
        if count == _PEERS:
            peer = Sample([_peer_seconds()]).times(1e3)
            rows.append(Row(what, "ms", ours, f"multiprocessing: {_PEERS} terminated", peer, goal))
        else:
            rows.append(Row(what, "ms", ours, goal=goal))
    return rows


def measure_thousand() -> list[Row]:
    """Launch and stop a thousand agents in one engine."""
    count = 1000
    with guild_for(count) as (engine, guild):
        started = time.perf_counter()
        guild.launch_agents(specs(count))
        launched = time.perf_counter()
        engine.shutdown()
        stopped = time.perf_counter()
    return [
        Row("1,000 agents launched, overlapped", "s", Sample([launched - started])),
        Row("1,000 agents stopped", "s", Sample([stopped - launched])),
    ]


def _seconds(count: int) -> float:
    with guild_for(count) as (engine, guild):
        guild.launch_agents(specs(count))
        started = time.perf_counter()
        engine.shutdown()
        return time.perf_counter() - started


def _peer_seconds() -> float:
    with spawned(_PEERS, overlapped=True) as (_, children):
        started = time.perf_counter()
        for child in children:
            child.process.terminate()
        for child in children:
            child.process.join()
        return time.perf_counter() - started
