"""Fault tolerance: agents are killed with SIGKILL, a loop notices and starts them again."""

from __future__ import annotations

import argparse
import os
import signal
import threading

from rustic_ai.core.guild import Agent, AgentBuilder, Guild, GuildTopics, ProcessContext, agent
from rustic_ai.core.guild.agent import JsonDict
from rustic_ai.core.guild.execution.multiprocess import MultiProcessExecutionEngine

CHECK_INTERVAL = 5.0
"""Seconds between two looks at all agents, where nothing wakes the loop earlier."""


class SturdyAgent(Agent):
    """Answers with the number of its process."""

    @agent.processor(JsonDict)
    def tell(self, ctx: ProcessContext[JsonDict]) -> None:
        ctx.send_dict({"pid": os.getpid()})


def robust_agent_management(
    guild: Guild, engine: MultiProcessExecutionEngine, restarts: int
) -> None:
    """Restart agents that have died, until that was done `restarts` times."""
    died = threading.Event()
    engine.add_exit_listener(lambda _: died.set())  # no need to wait for the next look
    while restarts > 0:
        died.clear()
        engine.cleanup_dead_processes()
        agents = engine.get_agents_in_guild(guild.id)
        for agent_id, agent_spec in agents.items():
            if not engine.is_agent_running(guild.id, agent_id):
                info = engine.get_process_info(guild.id, agent_id)
                print(f"Agent {agent_id} has died ({info['last_exit']}), restarting...")
                engine.stop_agent(guild.id, agent_id)
                guild.launch_agent(agent_spec, execution_engine=engine)
                restarts -= 1
        if restarts > 0:
            died.wait(CHECK_INTERVAL)


def ask_pid(guild: Guild, agent_id: str) -> int:
    """Return the process that an agent answers from."""
    answer = guild.request({"question": "where?"}, GuildTopics.get_agent_inbox(agent_id))
    return int(answer.payload["pid"])


def main() -> None:
    """Launch some agents, kill some of them, and have them restarted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--agents", type=int, default=3)
    parser.add_argument("--kills", type=int, default=2, help="not more than there are agents")
    arguments = parser.parse_args()
    guild_id = f"fault_tolerance-{os.getpid()}"  # so that two runs do not share messages
    engine = MultiProcessExecutionEngine(guild_id=guild_id, max_processes=arguments.agents)
    with Guild(guild_id, engine) as guild:
        names = [f"sturdy-{i}" for i in range(arguments.agents)]
        for name in names:
            builder = AgentBuilder().set_id(name).set_name(name).set_class_name("SturdyAgent")
            guild.launch_agent(builder.build_spec())
        before = {name: ask_pid(guild, name) for name in names}
        victims = names[: arguments.kills]
        for name in victims:
            print(f"Killing {name}, process {before[name]}")
            os.kill(before[name], signal.SIGKILL)
        robust_agent_management(guild, engine, restarts=len(victims))
        for name in names:
            after = ask_pid(guild, name)
            change = "as before" if after == before[name] else f"was {before[name]}"
            print(f"{name} answers from process {after} ({change})")


if __name__ == "__main__":
    main()
