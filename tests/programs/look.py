"""Attaches to a guild by its name, and prints what it sees."""

import sys

from rustic_ai.core.guild.execution.multiprocess import MultiProcessAgentTracker

if __name__ == "__main__":
    name = sys.argv[1]
    with MultiProcessAgentTracker.attach(name) as tracker:
        agents = {a: tracker.get_process_info(name, a) for a in tracker.get_agents_in_guild(name)}
        print({"agents": agents, "stats": tracker.get_stats(), "engine_pid": tracker.engine_pid})
