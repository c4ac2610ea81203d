"""Process monitoring: which process every agent runs in, and whether it lives."""

from __future__ import annotations

import argparse
import os

from rustic_ai.core.guild import Agent, AgentBuilder, Guild, ProcessContext, agent
from rustic_ai.core.guild.agent import JsonDict
from rustic_ai.core.guild.execution import ExecutionEngine
from rustic_ai.core.guild.execution.multiprocess import MultiProcessExecutionEngine


class ListeningAgent(Agent):
    """Waits for messages, and answers with what it knows of its process."""

    @agent.processor(JsonDict)
    def tell(self, ctx: ProcessContext[JsonDict]) -> None:
        ctx.send_dict({"pid": os.getpid()})


def monitor_agents(engine: ExecutionEngine, guild_id: str) -> None:
    """Print what the engine knows of every agent, and of itself."""
    agents = engine.get_agents_in_guild(guild_id)
    for agent_id, agent_spec in agents.items():
        process_info = engine.get_process_info(guild_id, agent_id)
        is_alive = engine.is_agent_running(guild_id, agent_id)
        print(f"Agent {agent_id}:")
        print(f"  PID: {process_info.get('pid')}")
        print(f"  Alive: {is_alive}")
        print(f"  Name: {agent_spec.name}")
        print(f"  Status: {process_info.get('status')}")
        print(f"  Memory: {process_info.get('memory_mb'):.1f} MB")
    stats = engine.get_engine_stats()
    print(f"Total agents: {stats['owned_agents_count']}")
    print(f"Max processes: {stats['max_processes']}")


def main() -> None:
    """Launch some agents, and look at them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--agents", type=int, default=3)
    arguments = parser.parse_args()
    guild_id = f"monitoring-{os.getpid()}"  # so that two runs do not share messages
    engine = MultiProcessExecutionEngine(guild_id=guild_id, max_processes=arguments.agents)
    with Guild(guild_id, engine) as guild:
        for i in range(arguments.agents):
            builder = AgentBuilder().set_id(f"listener-{i}").set_name(f"listener number {i}")
            guild.launch_agent(builder.set_class_name("ListeningAgent").build_spec())
        monitor_agents(engine, guild_id)


if __name__ == "__main__":
    main()
