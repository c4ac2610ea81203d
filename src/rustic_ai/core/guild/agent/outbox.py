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
        self, payload: Payload, topics: str | Sequence[str], *, now: bool = False, **options: Any
    ) -> Message:
        """Compose a message and send it; options as in `compose`.

        Args:
            payload: a model or a dict.
            topics: where it goes.
            now: in a handler: do not wait for its end.
            options: as in `compose`.
        """
        message = self.compose(payload, topics, **options)
        self._client.publish(message, now=now)
        return message

    def answer(
        self,
        cause: Message,
        payload: Payload,
        format_name: str | None,
        topics: str | Sequence[str],
        recipients: Sequence[AgentTag],
        priority: Priority | None,
        ttl: float | None,
        now: bool,  # noqa: FBT001 - all positional: keywords cost as much as the rest
    ) -> Message:
        """Send what answers a message; as `post`, on the path that handlers take."""
        if format_name is None:
            format_name = format_of(type(payload)) if isinstance(payload, BaseModel) else _PLAIN
        source = cause.envelope
        message_id = next_id(id_priority(source.id) if priority is None else Priority(priority))
        envelope = make_envelope(
            message_id,
            self._client.tag,
            topics,
            payload,
            format_name,
            source.id,
            source.thread,
            recipients,
            ttl,
            False,
            source.traceparent,
        )
        message = Message.from_envelope(envelope, None)
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
        if format is None:
            is_model = isinstance(payload, BaseModel)
            format = format_of(type(payload)) if is_model else _PLAIN  # noqa: A001
        if priority is None:
            urgency: int = _NORMAL if cause is None else id_priority(cause.id)
        else:
            urgency = Priority(priority)
        source = None if cause is None else cause.envelope
        envelope = make_envelope(
            next_id(urgency),
            self._client.tag,
            topics,
            payload,
            format,
            in_response_to=None if source is None else source.id,
            thread=None if source is None else source.thread,
            recipients=recipients,
            ttl=ttl,
            is_error=is_error,
            traceparent=None if source is None else source.traceparent,
        )
        return Message.from_envelope(envelope, None)
