"""A script that forgot its ``if __name__ == "__main__":``."""

import sys

from rustic_ai.core.guild import Agent, AgentBuilder, Guild
from rustic_ai.core.messaging.backend.embedded_backend import create_embedded_messaging_config


class UnguardedAgent(Agent):
    """Needs this file in its process."""


config = create_embedded_messaging_config(port=int(sys.argv[1]))
with Guild("unguarded", messaging_config=config) as guild:
    guild.launch_agent(AgentBuilder(UnguardedAgent).set_name("u").build_spec())
