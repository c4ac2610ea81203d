"""Asks about an agent that another program runs on a Ray cluster: ADDRESS GUILD AGENT."""

from __future__ import annotations

import sys

from rustic_ai.core.errors import DuplicateAgentError
from rustic_ai.core.guild.spec import GuildSpec
from rustic_ai.ray import RayExecutionEngine

address, guild, agent = sys.argv[1:]
with RayExecutionEngine(guild, address=address) as engine:
    listed = engine.get_agents_in_guild(guild)
    info = engine.get_process_info(guild, agent)
    print(*listed, engine.is_agent_running(guild, agent))
    print(info["pid"], info["memory_mb"], info["node"])
    try:
        engine.run_agent(GuildSpec(id=guild), listed[agent], "embedded://localhost:31134")
    except DuplicateAgentError as e:
        print(type(e).__name__)
