"""A message: an envelope, and a payload that stays bytes until somebody wants it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

import msgspec

from rustic_ai.core.errors import ProtocolError
from rustic_ai.core.messaging.core.attachment import Part
from rustic_ai.core.messaging.core.dead_letter import DeadLetterNote
from rustic_ai.core.messaging.core.envelope import (
    AgentTag,
    Envelope,
    decode_envelope,
    make_envelope,
)
from rustic_ai.core.messaging.core.message_id import GemstoneID, id_time_ms
from rustic_ai.core.messaging.core.payload import Encoding, decode_payload, encode_payload
from rustic_ai.core.messaging.core.priority import Priority

__all__ = [
    "AgentTag",
    "EncodedMessage",
    "JsonDict",
    "Message",
    "MessageConstants",
    "WrappedMessage",
]

JsonDict = dict[str, Any]
_JSON: Final = Encoding.JSON


class MessageConstants:
    """Names with a meaning of their own in messages."""

    RAW_JSON_FORMAT: ClassVar = "generic_json"


class Message:
    """A message as agents see it: immutable, its payload decoded on first use.

    `topic_published_to` is the topic that it came from; `attempt` counts its deliveries to this
    subscriber; `dead_letter` says why it was given up, where it was. `parts` are pieces of the
    payload too large for the envelope.

    Args:
        id_obj: the id, from `GemstoneGenerator.get_id`; its priority is the message's.
        sender: who sends it.
        topics: a topic, or several; the message is stored once in each.
        payload: a dict of what JSON can hold (and bytes), or a pydantic model; both may hold numpy
            arrays and Arrow tables. Bytes, an array, or a table.
        format: what the payload is; a model's is its qualified class name, of values that are a
            payload as they are 'bytes', 'numpy.ndarray', 'pyarrow.Table' or 'pyarrow.RecordBatch'.
        priority: only to state what the id says already.
        recipient_list: agents that are tagged; others may ignore the message.
        in_response_to: id of the message that this one answers.
        thread: ids of the threads it belongs to, the innermost last; default its own id.
        ttl: seconds from its making after which nobody wants it any more.
        is_error_message: the payload describes a failure.
        traceparent: W3C trace context.

    Raises:
        ValueError: `priority` is not that of the id, no topic is given, or `ttl` is not positive.
        TypeError: the payload holds a value that a message cannot carry; the text names its path.
    """

    id: int
    """The sortable 64-bit id."""
    topic_published_to: str | None
    attempt: int
    dead_letter: DeadLetterNote | None
    parts: tuple[Part, ...]
    encoded: bytes
    """The envelope as bytes, where that is all there is of it; else empty."""
    _topics: tuple[str, ...] | None
    _envelope: Envelope | None
    _payload: Any

    def __init__(
        self,
        *,
        id_obj: GemstoneID,
        sender: AgentTag,
        topics: str | Sequence[str],
        payload: Any,
        format: str = MessageConstants.RAW_JSON_FORMAT,  # noqa: A002 - the field's name
        priority: Priority | None = None,
        recipient_list: Sequence[AgentTag] = (),
        in_response_to: int | None = None,
        thread: Sequence[int] | None = None,
        ttl: float | None = None,
        is_error_message: bool = False,
        traceparent: str | None = None,
    ) -> None:
        if priority is not None and priority != id_obj.priority:
            raise ValueError(
                f"the id says priority {id_obj.priority.name}, not {Priority(priority).name}: "
                "the priority is part of the id, so make the id with get_id(priority)"
            )
        encoding, body, parts = encode_payload(payload)
        envelope = make_envelope(
            id_obj.value,
            sender,
            topics,
            encoding,
            body,
            format,
            in_response_to=in_response_to,
            thread=thread,
            recipients=recipient_list,
            ttl=ttl,
            is_error=is_error_message,
            traceparent=traceparent,
        )
        self._wrap(envelope)
        self.parts = parts

    def _wrap(self, envelope: Envelope) -> None:
        """Be the message of an envelope that came from nowhere yet."""
        self._envelope = envelope
        self._payload = None
        self.id = envelope.id
        self._topics = envelope.topics
        self.encoded = b""
        self.parts = ()
        self.topic_published_to = None
        self.attempt = 1
        self.dead_letter = None

    @classmethod
    def from_envelope(
        cls,
        envelope: Envelope,
        topic: str | None,
        attempt: int = 1,
        dead_letter: DeadLetterNote | None = None,
    ) -> Message:
        """Wrap an envelope that arrived on `topic`, for the `attempt`-th time."""
        return WrappedMessage(envelope, topic, attempt, dead_letter)

    @property
    def envelope(self) -> Envelope:
        """What travels; an object only when somebody asks for it.

        Raises:
            ProtocolError: it is no envelope. Everything that is said in one raises that then.
        """
        envelope = self._envelope
        if envelope is None:
            try:
                envelope = self._envelope = decode_envelope(self.encoded)
            except msgspec.DecodeError as e:
                where = f"message {self.id} on topic {self.topic_published_to!r}"
                raise ProtocolError(summary=f"{where} cannot be read: {e}") from e
        return envelope

    @property
    def topics(self) -> tuple[str, ...]:
        """The topics it was sent to."""
        topics = self._topics
        return self.envelope.topics if topics is None else topics

    @property
    def id_obj(self) -> GemstoneID:
        """The id as an object that can be taken apart."""
        return GemstoneID(self.id)

    @property
    def priority(self) -> Priority:
        """Urgency, as the id says."""
        return self.id_obj.priority

    @property
    def timestamp(self) -> int:
        """When it was made, in milliseconds since 1970-01-01 UTC."""
        return id_time_ms(self.id)

    @property
    def sender(self) -> AgentTag:
        """Who sent it."""
        return self.envelope.sender

    @property
    def format(self) -> str:
        """What the payload is."""
        return self.envelope.format

    @property
    def payload(self) -> Any:
        """The payload: of a model or dict a dict, else the bytes, array or table that was sent.

        Decoded once, then kept. Treat it as read-only: arrays and tables are.

        Raises:
            PickleRefusedError: it is pickled.
            PayloadGoneError: a large part of it is lost.
            PayloadError: it cannot be read.
        """
        if self._payload is None:
            encoding = self.envelope.encoding
            if encoding <= _JSON:
                self._payload = decode_payload(encoding, self.envelope.payload)
            else:
                from rustic_ai.core.messaging.core.payloads.reading import payload_of

                self._payload = payload_of(self)
        return self._payload

    def describe_payload(self) -> Any:
        """Return the payload for logs: arrays and what else is large in a few words."""
        if self.envelope.encoding <= _JSON:
            return self.payload
        from rustic_ai.core.messaging.core.payloads.reading import described

        return described(self)

    @property
    def in_response_to(self) -> int | None:
        """Id of the message that this one answers."""
        return self.envelope.in_response_to

    @property
    def thread(self) -> tuple[int, ...]:
        """Ids of the threads it belongs to, the innermost last."""
        return self.envelope.thread

    @property
    def root_thread_id(self) -> int:
        """Id of the outermost thread: of the message that began the conversation."""
        return self.envelope.thread[0] if self.envelope.thread else self.envelope.id

    @property
    def current_thread_id(self) -> int:
        """Id of the innermost thread."""
        return self.envelope.thread[-1] if self.envelope.thread else self.envelope.id

    @property
    def recipient_list(self) -> tuple[AgentTag, ...]:
        """Agents that are tagged."""
        return self.envelope.recipients

    @property
    def ttl(self) -> float | None:
        """Seconds from its making after which nobody wants it any more."""
        return self.envelope.ttl

    @property
    def is_error_message(self) -> bool:
        """Whether the payload describes a failure."""
        return self.envelope.is_error

    @property
    def traceparent(self) -> str | None:
        """W3C trace context."""
        return self.envelope.traceparent

    def is_expired(self, now_ms: float) -> bool:
        """Say whether its time to live is over; `now_ms` since 1970-01-01 UTC."""
        ttl = self.envelope.ttl
        return ttl is not None and now_ms > id_time_ms(self.id) + ttl * 1000

    def is_tagged(self, agent_id: str, agent_name: str) -> bool:
        """Say whether an agent is among the recipients, by id or by name."""
        return any(
            tag.id == agent_id or (tag.id is None and tag.name == agent_name)
            for tag in self.envelope.recipients
        )

    def to_dict(self) -> Mapping[str, Any]:
        """Return everything as plain data, for logs and JSON; of large values what they are."""
        envelope = self.envelope
        return {
            "id": envelope.id,
            "timestamp": self.timestamp,
            "priority": self.priority.name,
            "sender": {"id": envelope.sender.id, "name": envelope.sender.name},
            "topics": list(envelope.topics),
            "topic_published_to": self.topic_published_to,
            "format": envelope.format,
            "payload": self.describe_payload(),
            "in_response_to": envelope.in_response_to,
            "thread": list(envelope.thread),
            "recipient_list": [{"id": t.id, "name": t.name} for t in envelope.recipients],
            "ttl": envelope.ttl,
            "is_error_message": envelope.is_error,
            "traceparent": envelope.traceparent,
            "attempt": self.attempt,
            "dead_letter": msgspec.to_builtins(self.dead_letter, str_keys=True),
        }

    def __reduce__(self) -> tuple[Any, ...]:
        """Be copied and pickled as what travels of it."""
        about = self.topic_published_to, self.attempt, self.dead_letter
        return _restored, (self.envelope, *about, self.parts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Message) and other.envelope == self.envelope

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        try:
            e = self.envelope
        except ProtocolError:
            return f"<Message {self.id} that cannot be read>"
        return f"<Message {e.id} {e.format!r} from {e.sender.name!r} to {', '.join(e.topics)}>"


class WrappedMessage(Message):
    """The message of an envelope.

    Args:
        envelope: what travelled, or will.
        topic: where it came from.
        attempt: for the how-manieth time.
        dead_letter: why it was given up.
    """

    def __init__(
        self,
        envelope: Envelope,
        topic: str | None,
        attempt: int = 1,
        dead_letter: DeadLetterNote | None = None,
    ) -> None:
        self._wrap(envelope)
        self.topic_published_to = topic
        self.attempt = attempt
        self.dead_letter = dead_letter


class EncodedMessage(Message):
    """A plain message of which there are only bytes, until somebody asks for the envelope.

    It has no parts and no time to live, and is no dead letter.

    Args:
        encoded: the envelope.
        message_id: the id that stands in it.
        topics: those that stand in it, where that is known.
        topic: where it came from.
        attempt: for the how-manieth time.
    """

    def __init__(
        self,
        encoded: bytes,
        message_id: int,
        topics: tuple[str, ...] | None,
        topic: str | None = None,
        attempt: int = 1,
    ) -> None:
        self._envelope = None
        self._payload = None
        self.id = message_id
        self._topics = topics
        self.encoded = encoded
        self.parts = ()
        self.topic_published_to = topic
        self.attempt = attempt
        self.dead_letter = None


def _restored(
    envelope: Envelope,
    topic: str | None,
    attempt: int,
    dead_letter: DeadLetterNote | None,
    parts: tuple[Part, ...],
) -> Message:
    message = WrappedMessage(envelope, topic, attempt, dead_letter)
    message.parts = parts
    return message
