"""Turns what somebody says into messages, and sends them."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel

from rustic_ai.core.guild.agent.processor import format_of
from rustic_ai.core.messaging.client.client import Client
from rustic_ai.core.messaging.core.attachment import Part, stored
from rustic_ai.core.messaging.core.envelope import AgentTag, make_envelope
from rustic_ai.core.messaging.core.message import Message, MessageConstants
from rustic_ai.core.messaging.core.message_id import id_priority, next_id
from rustic_ai.core.messaging.core.payload import Encoding, encode_model, encode_payload
from rustic_ai.core.messaging.core.priority import Priority
from rustic_ai.core.messaging.core.templates import Templates

if TYPE_CHECKING:
    from rustic_ai.core.messaging.core.payloads.arrays import Array

Payload = Any
"""A pydantic model or a dict, both with arrays in them or without; bytes, a bytearray or a
memoryview; a numpy array; an Arrow table or record batch; with `pickle=True` whatever pickles."""
_PLAIN: Final = MessageConstants.RAW_JSON_FORMAT
_NORMAL: Final = int(Priority.NORMAL)


class Outbox:
    """Sends in the name of one participant."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._templates = Templates()
        self._allocated: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()

    @property
    def trusted(self) -> bool:
        """Whether everybody who can publish is the same user, proven to be."""
        return self._client.trusted

    def allocate(self, shape: int | Sequence[int], dtype: Any) -> Array:
        """Return an array to fill and send; see `ProcessContext.allocate`."""
        from rustic_ai.core.messaging.core.payloads.arrays import new_array

        array = new_array(self._client.allocate, shape, dtype)
        self._allocated[id(array)] = array
        return array

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
        store: bool = False,  # noqa: FBT001, FBT002
        pickle: bool = False,  # noqa: FBT001, FBT002
    ) -> Message:
        """Compose a message and send it.

        Args:
            payload: one of `Payload`.
            topics: where it goes.
            format: default: that of the payload.
            cause: the message that it answers.
            priority: default: that of the cause, or normal.
            recipients: agents to tag.
            ttl: seconds after which nobody wants it any more.
            is_error: the payload describes a failure.
            now: in a handler: do not wait for its end.
            store: keep what is large in the payload with the message, for later readers.
            pickle: pickle the payload.
        """
        message: Message | None = None
        names = topics if isinstance(topics, str) else tuple(topics)
        is_plain = (
            format is None
            and priority is None
            and ttl is None
            and not (recipients or is_error or pickle)
        )
        if is_plain:
            message = self._templates.fill(payload, names, cause)
        if message is None:
            message = self.compose(
                payload, names, format, cause, priority, recipients, ttl, is_error, store, pickle
            )
            if is_plain:
                self._templates.learn(payload, names, message)
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
        store: bool = False,  # noqa: FBT001, FBT002
        pickle: bool = False,  # noqa: FBT001, FBT002
    ) -> Message:
        """Make the message that carries a payload; arguments as of `post`.

        What answers another message takes over its thread and trace context, too.

        Raises:
            TypeError: the payload cannot travel.
            PickleRefusedError: it is to be pickled, and the messaging is not `trusted`.
        """
        if pickle:
            encoding, body, parts = self._pickled(payload)
            format = format or _format_of_value(payload, True)  # noqa: A001
        elif isinstance(payload, BaseModel):
            encoding, body, parts = encode_model(payload)
            format = format or format_of(payload.__class__)  # noqa: A001
        else:
            encoding, body, parts = encode_payload(payload)
            if format is None:
                is_dict = isinstance(payload, dict)
                format = _PLAIN if is_dict else _format_of_value(payload, False)  # noqa: A001
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
            encoding,
            body,
            format,
            question,
            thread,
            recipients,
            ttl,
            is_error,
            trace,
        )
        message = Message.from_envelope(envelope, None)
        if parts:
            message.parts = self._sealed(payload, parts, store)
        return message

    def _pickled(self, payload: Any) -> tuple[Encoding, bytes, tuple[Part, ...]]:
        from rustic_ai.core.messaging.core.payloads.pickled import encode_pickle
        from rustic_ai.core.messaging.core.payloads.reading import untrusted

        if not self.trusted:
            raise untrusted(_format_of_value(payload, True))
        return encode_pickle(payload)

    def _sealed(self, payload: Any, parts: tuple[Part, ...], store: bool) -> tuple[Part, ...]:  # noqa: FBT001
        """Return the parts as they are sent; arrays of `allocate` among them become read-only."""
        if self._allocated:
            from rustic_ai.core.messaging.core.payloads.arrays import freeze

            freeze(payload, parts, self._allocated)
        return stored(parts) if store else parts


def _format_of_value(payload: Any, pickled: bool) -> str:  # noqa: FBT001
    from rustic_ai.core.messaging.core.payloads.writing import format_of_value

    return format_of_value(payload, pickled=pickled)
