"""What agents cost that have nothing to do."""

from __future__ import annotations

import os
import time

from benchmarks.process.guilds import guild_for, nursery_pid, pids_of, specs
from benchmarks.process.report import Goal, Row, Sample

_AGENTS = 100


def measure(*, full: bool) -> list[Row]:
    """Measure CPU time of agents, nursery and this program over some seconds."""
    seconds = 30.0 if full else 10.0
    with guild_for(_AGENTS) as (engine, guild):
        guild.launch_agents(specs(_AGENTS))
        pids = [*pids_of(engine), nursery_pid(), os.getpid()]
        time.sleep(2)  # what starting left to do is not idling
        before, started = _cpu_seconds(pids), time.perf_counter()
        time.sleep(seconds)
        used = _cpu_seconds(pids) - before
        share = 100 * used / (time.perf_counter() - started)
    what = f"{_AGENTS} idle agents, nursery and program, over {seconds:g} s"
    return [Row(what, "% of a core", Sample([share]), goal=Goal.under(1))]


def _cpu_seconds(pids: list[int]) -> float:
    # The clock of a process, in nanoseconds: /proc/PID/stat counts in hundredths of a second,
    # which is more than an idle agent uses. Source: clock_getcpuclockid(3).
    return sum(time.clock_gettime((~pid << 3) | 2) for pid in pids)
