"""An agent that dies or fails of messages, until it is cured."""

from __future__ import annotations

import os
from pathlib import Path

from rustic_ai.core.guild import Agent, ProcessContext
from rustic_ai.core.guild.agent import JsonDict, processor
from rustic_ai.core.guild.spec import BaseAgentProps

HEARD = "heard"
"""Topic on which the agent says what it has handled, and at which attempt."""


class MortalProps(BaseAgentProps):
    """Properties of `MortalAgent`."""

    cure: str = "/nowhere"
    """A file; while it is not there, deadly messages are deadly."""


class MortalAgent(Agent[MortalProps]):
    """Handles {"n": name of the message, "die" or "raise": attempts that it does not survive}.

    Says so before it dies or fails as well as after it has not: the first must never be seen.
    """

    @processor(JsonDict)
    def handle(self, ctx: ProcessContext[JsonDict]) -> None:
        """Handle it, or do not survive that."""
        task, attempt = ctx.payload, ctx.message.attempt
        victim = task.get("victim", self.id) == self.id
        if victim and attempt <= task.get("die", 0) and not Path(self.config.cure).exists():
            ctx.send_dict({"n": "last words"}, topics=[HEARD])
            os._exit(3)
        if victim and attempt <= task.get("raise", 0) and not Path(self.config.cure).exists():
            raise ValueError(f"attempt {attempt} at {task['n']}")
        ctx.send_dict({"n": task["n"], "attempt": attempt, "by": self.id}, topics=[HEARD])
