"""What a handler may touch: the message in hand, and the ways to answer it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pydantic import BaseModel

from rustic_ai.core.guild.agent.outbox import Outbox, Payload
from rustic_ai.core.guild.routing import result_topics
from rustic_ai.core.guild.system_messages import GuildFinished, ProgressReport
from rustic_ai.core.guild.topics import GuildTopics
from rustic_ai.core.messaging.core.message import AgentTag, Message
from rustic_ai.core.messaging.core.priority import Priority

if TYPE_CHECKING:
    from rustic_ai.core.guild.agent.agent import Agent

PayloadT = TypeVar("PayloadT")


class ProcessContext(Generic[PayloadT]):
    """One message in the hands of one handler.

    Attributes:
        payload: the payload, in the type that the processor asked for.
        message: the whole message.
        agent: the agent that handles it.
    """

    __slots__ = ("_outbox", "agent", "message", "payload")

    def __init__(
        self, payload: PayloadT, message: Message, agent: Agent[Any], outbox: Outbox
    ) -> None:
        self.payload = payload
        self.message = message
        self.agent = agent
        self._outbox = outbox

    def send(
        self,
        payload: BaseModel,
        *,
        topics: str | Sequence[str] | None = None,
        recipients: Sequence[AgentTag] = (),
        priority: Priority | None = None,
        ttl: float | None = None,
    ) -> Message:
        """Send a model as the result; by default to the topics of the message in hand.

        A message that came to the agent's own inbox is answered to its sender's inbox.

        Returns:
            The message that was sent.
        """
        return self._post(payload, None, topics, recipients, priority, ttl)

    def send_dict(
        self,
        payload: dict[str, Any],
        *,
        format: str | None = None,  # noqa: A002 - the name users write
        topics: str | Sequence[str] | None = None,
        recipients: Sequence[AgentTag] = (),
        priority: Priority | None = None,
        ttl: float | None = None,
    ) -> Message:
        """Send a dict as the result, as plain JSON or as another `format`; else like `send`."""
        return self._post(payload, format, topics, recipients, priority, ttl)

    def send_error(self, payload: BaseModel) -> Message:
        """Answer with a model that describes a failure; it also goes to the error topic."""
        topics = self._result_topics()
        return self._outbox.post(
            payload,
            list(dict.fromkeys([*topics, GuildTopics.ERROR_TOPIC])),
            cause=self.message,
            is_error=True,
        )

    def report_progress(self, done: float, total: float | None = None, note: str = "") -> None:
        """Tell whoever runs the guild how far its work is."""
        report = ProgressReport(done=done, total=total, note=note)
        self._outbox.post(report, GuildTopics.STATUS_TOPIC, cause=self.message)

    def finish_guild(self, result: dict[str, Any] | None = None, *, success: bool = True) -> None:
        """Tell whoever runs the guild that its work is done, and what came of it."""
        finished = GuildFinished(success=success, result=result or {})
        self._outbox.post(finished, GuildTopics.STATUS_TOPIC, cause=self.message)

    def _result_topics(self) -> Sequence[str]:
        return result_topics(self.message, GuildTopics.get_agent_inbox(self.agent.id))

    def _post(
        self,
        payload: Payload,
        format_name: str | None,
        topics: str | Sequence[str] | None,
        recipients: Sequence[AgentTag],
        priority: Priority | None,
        ttl: float | None,
    ) -> Message:
        return self._outbox.post(
            payload,
            topics if topics is not None else self._result_topics(),
            format=format_name,
            cause=self.message,
            recipients=recipients,
            priority=priority,
            ttl=ttl,
        )
