"""Guilds to measure: an engine whose nursery is ready, and specs."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil

from benchmarks.process.agents import EchoAgent
from rustic_ai.core.guild import AgentBuilder, AgentSpec, Guild
from rustic_ai.core.guild.execution import MultiProcessExecutionEngine
from rustic_ai.core.messaging.backend.embedded_backend import create_embedded_messaging_config

GUILD = "benchmark"
NO_MESSAGES = {
    "backend_module": "rustic_ai.core.messaging.backend.in_memory_backend",
    "backend_class": "InMemoryMessagingBackend",
}
"""Enough for agents that nobody talks to."""


def specs(count: int) -> list[AgentSpec]:
    """Return specs of so many agents."""
    names = [f"a{n}" for n in range(count)]
    return [AgentBuilder(EchoAgent).set_id(n).set_name(n).build_spec() for n in names]


@contextmanager
def guild_for(
    agents: int, messaging: dict[str, Any] | None = None, **settings: Any
) -> Iterator[tuple[MultiProcessExecutionEngine, Guild]]:
    """Make a guild with room for so many agents; its nursery is ready, it has no agent yet."""
    with (
        MultiProcessExecutionEngine(GUILD, agents + 1, **settings) as engine,
        Guild(GUILD, engine, messaging or NO_MESSAGES) as guild,
    ):
        (first,) = specs(1)
        guild.launch_agent(first)
        guild.remove_agent(first.id)
        yield engine, guild


def with_messages() -> dict[str, Any]:
    """Return a configuration with a message server of this run's own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return create_embedded_messaging_config(port=probe.getsockname()[1])


def pids_of(engine: MultiProcessExecutionEngine) -> list[int]:
    """Return the pids of all agents."""
    ids = engine.get_agents_in_guild(GUILD)
    return [engine.get_process_info(GUILD, agent_id)["pid"] for agent_id in ids]


def nursery_pid() -> int:
    """Return the pid of the nursery of the only engine of this program."""
    (found,) = [
        child.pid
        for child in psutil.Process().children()
        if any(part.startswith("rustic-nursery:") for part in child.cmdline())
    ]
    return found
