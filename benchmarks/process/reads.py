"""What it costs to look: the shared table, the tracker, statistics, and a Manager's dict."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable

from benchmarks.process.guilds import GUILD, guild_for, specs
from benchmarks.process.report import Row, Sample
from rustic_ai.core.guild.execution.multiprocess import MultiProcessAgentTracker
from rustic_ai.core.guild.execution.multiprocess.pulse import TablePulse
from rustic_ai.core.guild.execution.multiprocess.table import Record, SharedTable

_AGENTS = 100
_RECORD = Record(1, 2, 4242, 0, None, 1, 2, 3, 4, (0, 0, 0))
_SET, _GET = "Manager dict: set", "Manager dict: get"
_NESTED = "Manager dict in a dict: get"
_REPEATS = 5
_REPEAT_SECONDS = 0.05


def measure() -> list[Row]:
    """Measure with many agents listed; microseconds per call."""
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager:
        shared = manager.dict(agent=_RECORD)
        nested = manager.dict(guild=manager.dict(agent=_RECORD))
        store = _time(lambda: shared.__setitem__("agent", _RECORD))
        read = _time(lambda: shared["agent"])
        deep = _time(lambda: nested["guild"]["agent"])
    return [*_table(store, read, deep), *_engine(read, deep)]


def _table(store: Sample, read: Sample, deep: Sample) -> list[Row]:
    table = SharedTable.create(_AGENTS)
    pulse = TablePulse(table, 0)
    table.write(0, _RECORD)
    rows = [
        _row("table: heartbeat", _time(pulse.beat), _SET, store),
        _row("table: record written", _time(lambda: table.write(0, _RECORD)), _SET, store),
        _row("table: record read, validated", _time(lambda: table.read(0)), _GET, read),
        _row("table: record read, validated", _time(lambda: table.read(0)), _NESTED, deep),
    ]
    del pulse
    table.close()
    return rows


def _engine(read: Sample, deep: Sample) -> list[Row]:
    with guild_for(_AGENTS) as (engine, guild):
        guild.launch_agents(specs(_AGENTS))
        one = f"a{_AGENTS // 2}"
        with MultiProcessAgentTracker.attach(GUILD) as seen:
            return [
                _row(
                    "engine: is_agent_running",
                    _time(lambda: engine.is_agent_running(GUILD, one)),
                    _NESTED,
                    deep,
                ),
                _row(
                    "engine: get_process_info",
                    _time(lambda: engine.get_process_info(GUILD, one)),
                    _NESTED,
                    deep,
                ),
                _row(f"engine: get_engine_stats, {_AGENTS} agents", _time(engine.get_engine_stats)),
                _row(
                    f"attached: get_process_info, {_AGENTS} agents",
                    _time(lambda: seen.get_process_info(GUILD, one)),
                    _GET,
                    read,
                ),
                _row(f"attached: get_stats, {_AGENTS} agents", _time(seen.get_stats)),
                _row("attached: find the guild", _time(_attach)),
            ]


def _attach() -> None:
    MultiProcessAgentTracker.attach(GUILD).close()


def _time(action: Callable[[], object]) -> Sample:
    """Return microseconds per call."""
    action()
    values = []
    for _ in range(_REPEATS):
        calls, started = 0, time.perf_counter()
        while (now := time.perf_counter()) - started < _REPEAT_SECONDS:
            for _ in range(10):
                action()
            calls += 10
        values.append(1e6 * (now - started) / calls)
    return Sample(values)


def _row(what: str, ours: Sample, peer_name: str = "", peer: Sample | None = None) -> Row:
    return Row(what, "us", ours, peer_name, peer)
