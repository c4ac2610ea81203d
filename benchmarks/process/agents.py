"""The agent that is measured; imported by every agent's process."""

from __future__ import annotations

from rustic_ai.core.guild import Agent, ProcessContext
from rustic_ai.core.guild.agent import JsonDict, processor
from rustic_ai.core.guild.spec import BaseAgentProps


class EchoAgent(Agent[BaseAgentProps]):
    """Answers with what it was sent."""

    @processor(JsonDict)
    def echo(self, ctx: ProcessContext[JsonDict]) -> None:
        """Answer."""
        ctx.send_dict({"echo": ctx.payload["say"]})
