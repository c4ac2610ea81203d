"""Agents for tests and first steps."""

from __future__ import annotations

from typing import Any

from rustic_ai.core.guild.agent import Agent, ProcessContext, processor
from rustic_ai.core.guild.spec import BaseAgentProps
from rustic_ai.core.messaging.core.message import JsonDict, Message
from rustic_ai.core.messaging.core.priority import Priority


class EchoAgent(Agent[BaseAgentProps]):
    """Sends back what it gets, in the format in which it came; errors and answers it leaves."""

    @processor(Message, predicate=lambda _, m: m.in_response_to is None and not m.is_error_message)
    def echo(self, ctx: ProcessContext[JsonDict]) -> None:
        """Answer with the same payload."""
        ctx.send_dict(ctx.payload, format=ctx.message.format)


class ProbeAgent(Agent[BaseAgentProps]):
    """Collects the messages that it gets, and publishes for a test; for the sync engine.

    In a process of its own its messages would be out of a test's reach: use `Guild.collect`.
    """

    def __init__(self) -> None:
        self._messages: list[Message] = []

    @processor(Message)
    def collect(self, ctx: ProcessContext[JsonDict]) -> None:
        """Keep the message."""
        self._messages.append(ctx.message)

    def get_messages(self) -> list[Message]:
        """Return what it got so far, oldest first."""
        return list(self._messages)

    def clear_messages(self) -> None:
        """Forget what it got."""
        self._messages.clear()

    def publish_dict(
        self,
        payload: dict[str, Any],
        topic: str = "default_topic",
        format: str | None = None,  # noqa: A002 - the name users write
        priority: Priority = Priority.NORMAL,
    ) -> Message:
        """Publish a dict on a topic."""
        return self.publish(payload, topic, format=format, priority=priority)
