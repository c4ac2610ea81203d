"""What an agent costs in memory: PSS, the share of the machine's that goes with it."""

from __future__ import annotations

from pathlib import Path

from benchmarks.process.guilds import guild_for, nursery_pid, pids_of, specs
from benchmarks.process.report import Goal, Row, Sample
from benchmarks.process.spawned import spawned

_AGENTS, _SPAWNED = 100, 8
_GOAL = Goal.under(6)


def measure() -> list[Row]:
    """Measure idle agents, just started."""
    with guild_for(_AGENTS) as (engine, guild):
        guild.launch_agents(specs(_AGENTS))
        ours = [_pss_mb(pid) for pid in pids_of(engine)]
        nursery = _pss_mb(nursery_pid())
    with spawned(_SPAWNED, overlapped=True) as (_, children):
        peer = [_pss_mb(child.process.pid or 0) for child in children]
    name = f"multiprocessing spawn, {_SPAWNED} children"
    with_nursery = (sum(ours) + nursery) / _AGENTS
    return [
        Row(f"PSS of each of {_AGENTS} agents", "MB", Sample(ours), name, Sample(peer), _GOAL),
        Row("the same with their share of the nursery", "MB", Sample([with_nursery])),
    ]


def _pss_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise ValueError(f"the kernel tells no PSS of {pid}")
