"""Turns what somebody says into messages, and sends them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel

from rustic_ai.core.guild.agent.processor import format_of
from rustic_ai.core.messaging.client.client import Client
from rustic_ai.core.messaging.core.message import (
    AgentTag,
    Message,
    MessageConstants,
    make_envelope,
)
from rustic_ai.core.messaging.core.message_id import id_priority, next_id
from rustic_ai.core.messaging.core.priority import Priority

Payload = BaseModel | dict[str, Any]
_PLAIN = MessageConstants.RAW_JSON_FORMAT
_NORMAL = int(Priority.NORMAL)


class Outbox:
    """Sends in the name of one participant."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def post(
        self,
        payload: Payload,
        topics: str | Sequence[str],
        format: str | None = None,  # noqa: A002 - the field's name
        cause: Message | None = None,
        priority: Priority | None = None,
        recipients: Sequence[AgentTag] = (),
        ttl: float | None = None,
        is_error: bool = False,  # noqa: FBT001, FBT002 - keywords cost time on this path
        now: bool = False,  # noqa: FBT001, FBT002
    ) -> Message:
        """Compose a message and send it.

        Args:
            payload: a model or a dict.
            topics: where it goes.
            format: default: that of the payload.
            cause: the message that it answers.
            priority: default: that of the cause, or normal.
            recipients: agents to tag.
            ttl: seconds after which nobody wants it any more.
            is_error: the payload describes a failure.
            now: in a handler: do not wait for its end.
        """
        message = self.compose(payload, topics, format, cause, priority, recipients, ttl, is_error)
        self._client.publish(message, now=now)
        return message

    def send(self, message: Message) -> None:
        """Send a composed message."""
        self._client.publish(message)

    def bury(self, message: Message, reason: str, attempts: int) -> None:
        """Hand a message to the dead letters."""
        self._client.bury(message, reason, attempts)

    def compose(
        self,
        payload: Payload,
        topics: str | Sequence[str],
        format: str | None = None,  # noqa: A002 - the field's name
        cause: Message | None = None,
        priority: Priority | None = None,
        recipients: Sequence[AgentTag] = (),
        ttl: float | None = None,
        is_error: bool = False,  # noqa: FBT001, FBT002
    ) -> Message:
        """Make the message that carries a payload; arguments as of `post`.

        What answers another message takes over its thread and trace context, too.
        """
        if format is None:
            is_model = isinstance(payload, BaseModel)
            format = format_of(type(payload)) if is_model else _PLAIN  # noqa: A001
        urgency = _NORMAL
        question = thread = trace = None
        if cause is not None:
            source = cause.envelope
            urgency = id_priority(source.id)
            question, thread, trace = source.id, source.thread, source.traceparent
        message_id = next_id(urgency if priority is None else Priority(priority))
        envelope = make_envelope(
            message_id,
            self._client.tag,
            topics,
            payload,
            format,
            question,
            thread,
            recipients,
            ttl,
            is_error,
            trace,
        )
        return Message.from_envelope(envelope, None)
