"""Launches more agents than its limit of open files has room for, and prints what it is told."""

import resource

from rustic_ai.core.errors import AgentStartError
from rustic_ai.core.guild import Guild
from rustic_ai.core.guild.execution import MultiProcessExecutionEngine
from rustic_ai.core.testing.agents import MultiplyingAgent
from tests.support import NO_MESSAGES, spec_of

if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    with (
        MultiProcessExecutionEngine("few", 100) as engine,
        Guild("few", engine, NO_MESSAGES) as guild,
    ):
        try:
            guild.launch_agents([spec_of(MultiplyingAgent, f"m{n}") for n in range(40)])
        except* AgentStartError as group:
            print(group.exceptions[0])
        assert engine.get_engine_stats()["alive_agents"] > 5
