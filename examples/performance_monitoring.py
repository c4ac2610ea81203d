"""Performance monitoring: memory and CPU of every agent's process, by psutil."""

from __future__ import annotations

import argparse
import os
import time

import psutil
from pydantic import BaseModel

from rustic_ai.core.guild import Agent, AgentBuilder, Guild, GuildTopics, ProcessContext, agent
from rustic_ai.core.guild.execution import ExecutionEngine
from rustic_ai.core.guild.execution.multiprocess import MultiProcessExecutionEngine


class Compute(BaseModel):
    """Keep a CPU busy for that many seconds."""

    seconds: float


class Computed(BaseModel):
    """How many rounds were made in that time."""

    rounds: int


class ComputeAgent(Agent):
    """Computes as long as it is told."""

    @agent.processor(Compute)
    def compute(self, ctx: ProcessContext[Compute]) -> None:
        end = time.monotonic() + ctx.payload.seconds
        rounds = 0
        while time.monotonic() < end:
            sum(n * n for n in range(1000))
            rounds += 1
        ctx.send(Computed(rounds=rounds))


def monitor_engine_performance(engine: ExecutionEngine, guild_id: str, interval: float) -> None:
    """Print what every agent's process uses; its CPU is observed for `interval` seconds."""
    stats = engine.get_engine_stats()
    agents = engine.get_agents_in_guild(guild_id)
    total_memory = 0.0
    total_cpu = 0.0
    for agent_id in agents:
        process_info = engine.get_process_info(guild_id, agent_id)
        pid = process_info.get("pid")
        if pid:
            try:
                process = psutil.Process(pid)
                memory_mb = process.memory_info().rss / 1024 / 1024
                # Without an interval the first answer for a process is always 0.0.
                cpu_percent = process.cpu_percent(interval)
            except psutil.NoSuchProcess:
                print(f"Agent {agent_id}: Process no longer exists")
                continue
            total_memory += memory_mb
            total_cpu += cpu_percent
            print(f"Agent {agent_id}: Memory={memory_mb:.1f}MB, CPU={cpu_percent:.1f}%")
    print(f"Total: Memory={total_memory:.1f}MB, CPU={total_cpu:.1f}%")
    print(f"Agents: {len(agents)}/{stats['max_processes']}")


def main() -> None:
    """Keep some agents busy, and one idle, while they are observed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--busy", type=int, default=2, help="agents that compute")
    parser.add_argument("--interval", type=float, default=0.5, help="seconds for each agent")
    arguments = parser.parse_args()
    names = [*(f"busy-{i}" for i in range(arguments.busy)), "idle"]
    guild_id = f"performance-{os.getpid()}"  # so that two runs do not share messages
    engine = MultiProcessExecutionEngine(guild_id=guild_id, max_processes=len(names))
    with Guild(guild_id, engine) as guild:
        for name in names:
            builder = AgentBuilder().set_id(name).set_name(name).set_class_name("ComputeAgent")
            # The tasks below are for all; the idle agent does not hear them.
            builder.listen_to_default_topic(name != "idle")
            guild.launch_agent(builder.build_spec())
        with guild.collect(GuildTopics.DEFAULT_TOPICS[0]) as box:
            seconds = arguments.interval * len(names) + 0.5
            guild.publish(Compute(seconds=seconds))
            monitor_engine_performance(engine, guild_id, arguments.interval)
            answers = box.take(arguments.busy + 1, timeout=seconds + 10)  # and the task itself
        rounds = {m.sender.name: m.payload["rounds"] for m in answers if "rounds" in m.payload}
        print(f"Rounds: {rounds}")


if __name__ == "__main__":
    main()
