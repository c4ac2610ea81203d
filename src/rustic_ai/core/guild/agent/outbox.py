"""Turns what somebody says into messages, and sends them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel

from rustic_ai.core.guild.agent.processor import format_of
from rustic_ai.core.messaging.client.client import Client
from rustic_ai.core.messaging.core.message import AgentTag, Message, MessageConstants
from rustic_ai.core.messaging.core.message_id import GemstoneGenerator
from rustic_ai.core.messaging.core.priority import Priority

Payload = BaseModel | dict[str, Any]


class Outbox:
    """Sends in the name of one participant."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._ids = GemstoneGenerator()

    def post(self, payload: Payload, topics: str | Sequence[str], **options: Any) -> Message:
        """Compose a message and send it; options as in `compose`."""
        message = self.compose(payload, topics, **options)
        self.send(message)
        return message

    def send(self, message: Message) -> None:
        """Send a composed message; returns when it was accepted."""
        self._client.publish(message)

    def compose(
        self,
        payload: Payload,
        topics: str | Sequence[str],
        *,
        format: str | None = None,  # noqa: A002 - the field's name
        cause: Message | None = None,
        priority: Priority | None = None,
        recipients: Sequence[AgentTag] = (),
        ttl: float | None = None,
        is_error: bool = False,
    ) -> Message:
        """Make the message that carries a payload.

        What answers another message (`cause`) takes over its thread, trace context and, unless
        told otherwise, its priority.
        """
        if format is None and isinstance(payload, BaseModel):
            format = format_of(type(payload))  # noqa: A001
        if priority is None:
            priority = cause.priority if cause is not None else Priority.NORMAL
        return Message(
            id_obj=self._ids.get_id(priority),
            sender=self._client.tag,
            topics=topics,
            payload=payload,
            format=format or MessageConstants.RAW_JSON_FORMAT,
            recipient_list=recipients,
            in_response_to=cause.id if cause is not None else None,
            thread=cause.thread if cause is not None else None,
            ttl=ttl,
            is_error_message=is_error,
            traceparent=cause.traceparent if cause is not None else None,
        )
