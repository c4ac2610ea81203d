"""A message: an envelope, and a payload that stays bytes until somebody wants it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from rustic_ai.core.messaging.core.attachment import Part
from rustic_ai.core.messaging.core.dead_letter import DeadLetterNote
from rustic_ai.core.messaging.core.message_id import GemstoneID, id_time_ms
from rustic_ai.core.messaging.core.payload import Encoding, decode_payload, encode_payload
from rustic_ai.core.messaging.core.priority import Priority

JsonDict = dict[str, Any]
_new = object.__new__
_JSON = Encoding.JSON


class MessageConstants:
    """Names with a meaning of their own in messages."""

    RAW_JSON_FORMAT = "generic_json"


class AgentTag(msgspec.Struct, frozen=True, array_like=True):
    """Who: an agent's id, and its name where known."""

    id: str | None = None
    name: str | None = None


class Envelope(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What travels. New fields go to the end and have a default: old readers ignore them."""

    id: int
    sender: AgentTag
    topics: tuple[str, ...]
    format: str
    encoding: Encoding
    payload: bytes
    in_response_to: int | None = None
    thread: tuple[int, ...] = ()
    recipients: tuple[AgentTag, ...] = ()
    ttl: float | None = None
    is_error: bool = False
    traceparent: str | None = None


def make_envelope(
    message_id: int,
    sender: AgentTag,
    topics: str | Sequence[str],
    encoding: Encoding,
    body: bytes,
    format_name: str,
    in_response_to: int | None = None,
    thread: Sequence[int] | None = None,
    recipients: Sequence[AgentTag] = (),
    ttl: float | None = None,
    is_error: bool = False,  # noqa: FBT001, FBT002
    traceparent: str | None = None,
) -> Envelope:
    """Put an envelope around an encoded payload; other arguments and errors as of `Message`."""
    if type(topics) is str and topics:  # by far the most frequent
        names: tuple[str, ...] = (topics,)
    elif not (names := _names_of(topics)) or not all(names):
        raise ValueError("a message needs at least one topic, and none may be empty")
    if ttl is not None and not ttl > 0:
        raise ValueError(f"ttl is in seconds and must be positive, not {ttl}")
    return Envelope(
        message_id,
        sender,
        names,
        format_name,
        encoding,
        body,
        in_response_to,
        (tuple(thread) if type(thread) is not tuple else thread) if thread else (message_id,),
        tuple(recipients) if recipients else (),
        ttl,
        is_error,
        traceparent,
    )


def _names_of(topics: str | Sequence[str]) -> tuple[str, ...]:
    return (topics,) if isinstance(topics, str) else tuple(topics)


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

    __slots__ = ("_payload", "attempt", "dead_letter", "envelope", "parts", "topic_published_to")

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
        self.envelope = make_envelope(
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
        self._payload: Any = None
        self.parts: tuple[Part, ...] = parts
        self.topic_published_to: str | None = None
        self.attempt = 1
        self.dead_letter: DeadLetterNote | None = None

    @classmethod
    def from_envelope(
        cls,
        envelope: Envelope,
        topic: str | None,
        attempt: int = 1,
        dead_letter: DeadLetterNote | None = None,
    ) -> Message:
        """Wrap an envelope that arrived on `topic`, for the `attempt`-th time."""
        message = _new(cls)
        message.envelope = envelope
        message._payload = None  # noqa: SLF001 - an alternative constructor
        message.parts = ()
        message.topic_published_to = topic
        message.attempt = attempt
        message.dead_letter = dead_letter
        return message

    @property
    def id(self) -> int:
        """The sortable 64-bit id."""
        return self.envelope.id

    @property
    def id_obj(self) -> GemstoneID:
        """The id as an object that can be taken apart."""
        return GemstoneID(self.envelope.id)

    @property
    def priority(self) -> Priority:
        """Urgency, as the id says."""
        return self.id_obj.priority

    @property
    def timestamp(self) -> int:
        """When it was made, in milliseconds since 1970-01-01 UTC."""
        return id_time_ms(self.envelope.id)

    @property
    def sender(self) -> AgentTag:
        """Who sent it."""
        return self.envelope.sender

    @property
    def topics(self) -> tuple[str, ...]:
        """The topics it was sent to."""
        return self.envelope.topics

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
        return ttl is not None and now_ms > id_time_ms(self.envelope.id) + ttl * 1000

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

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Message) and other.envelope == self.envelope

    def __hash__(self) -> int:
        return hash(self.envelope.id)

    def __repr__(self) -> str:
        e = self.envelope
        return f"<Message {e.id} {e.format!r} from {e.sender.name!r} to {', '.join(e.topics)}>"
