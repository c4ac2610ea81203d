"""Agent to agent: typed processors, in a guild whose agents have processes of their own."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.messaging.agent_roles import (
    ITEMS,
    PINGS,
    PONGS,
    RESULTS,
    Begin,
    Expect,
    Pinger,
    Ponger,
    Sink,
    Source,
    Tally,
    Trips,
    Volley,
)
from benchmarks.messaging.processes import cpu_of, server_of_this_process
from rustic_ai.core.guild import Agent, AgentBuilder, Guild
from rustic_ai.core.guild.execution.multiprocess import MultiProcessExecutionEngine
from rustic_ai.core.messaging.backend.embedded_backend import create_embedded_messaging_config

_PER_HANDLER = 500
_DEADLINE = 60.0


@dataclass(frozen=True)
class Talked:
    """Messages delivered per second; CPU in microseconds per message."""

    rate: float
    source_cpu: float
    server_cpu: float
    sink_cpu: float


@contextlib.contextmanager
def guild_of(*agents: tuple[type[Agent[Any]], str, str], **server: Any) -> Iterator[Guild]:
    """Run agents, each with a name and the topic that it listens to."""
    engine = MultiProcessExecutionEngine("bench", max_processes=len(agents))
    config = create_embedded_messaging_config(port=0, **server)
    with Guild("bench", engine, config) as guild:
        guild.launch_agents(
            [
                AgentBuilder(kind)
                .set_id(name)
                .set_name(name)
                .set_description(name)
                .add_additional_topic(topic)
                .build_spec()
                for kind, name, topic in agents
            ]
        )
        yield guild


def talk(n: int, *, free: bool, size: int = 170, sinks: int = 1) -> Talked:
    """Have a source send `n` items to sinks.

    Args:
        n: how many.
        free: from a thread beside the handlers, each sent on its own; else from within handlers.
        size: length of the text in each.
        sinks: how many take all of them.
    """
    names = [(Sink, f"sink{i}", ITEMS) for i in range(sinks)]
    with guild_of((Source, "source", "unused"), *names) as guild, guild.collect(RESULTS) as heard:
        server = server_of_this_process()
        for _, name, _ in names:
            guild.publish(Expect(n=n), topics=f"agent_inbox:{name}")
        heard.take(sinks, _DEADLINE)
        used = cpu_of(server)
        per_begin = n if free else _PER_HANDLER
        for _ in range(n // per_begin):
            guild.publish(
                Begin(n=per_begin, size=size, free=free, wanted=n), topics="agent_inbox:source"
            )
        tallies = [Tally.model_validate(m.payload) for m in heard.take(sinks + 1, _DEADLINE)]
        used = cpu_of(server) - used
    (source,) = [t for t in tallies if t.role == "source"]
    taken = [t for t in tallies if t.role == "sink"]
    seconds = max(t.ended for t in taken) - source.begun
    return Talked(
        rate=n * sinks / seconds,
        source_cpu=source.cpu / n * 1e6,
        server_cpu=used / n * 1e6,
        sink_cpu=sum(t.cpu for t in taken) / n / sinks * 1e6,
    )


def ping(n: int, core: int | None = None, size: int = 170) -> list[float]:
    """Return the seconds of `n` round trips between two agents; `core`: all on that one."""
    with (
        guild_of((Pinger, "pinger", PONGS), (Ponger, "ponger", PINGS)) as guild,
        guild.collect(RESULTS) as heard,
    ):
        if core is not None:
            pin(server_of_this_process(), core)
            for name in ("pinger", "ponger"):
                pin(guild.get_process_info(name)["pid"], core)
        guild.publish(Volley(n=n, size=size), topics="agent_inbox:pinger")
        (answer,) = heard.take(1, _DEADLINE)
        return Trips.model_validate(answer.payload).seconds


def pin(pid: int, core: int) -> None:
    """Keep all threads of a process on one core."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(int(task.name), {core})
