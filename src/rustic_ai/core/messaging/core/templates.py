"""Messages of one sender, joined from what their envelopes have in common.

Of two messages that a participant sends, mostly only the id and the payload differ. What stands
between these two in an envelope (sender, topics, format, encoding), and what stands after them
(what is answered), is encoded once, and then copied.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, Final

from pydantic_core import PydanticSerializationError

from rustic_ai.core.messaging.core.envelope import Envelope, encode_field
from rustic_ai.core.messaging.core.message import EncodedMessage, Message
from rustic_ai.core.messaging.core.message_id import id_priority, next_id
from rustic_ai.core.messaging.core.payload import Encoding
from rustic_ai.core.messaging.core.priority import Priority

_HEAD: Final = bytes([0x90 | len(Envelope.__struct_fields__), 0xCF])
"""MessagePack of an array of so many fields, of which the first is a number of 64 bits."""
_SHORT: Final = tuple(bytes([0xC4, size]) for size in range(256))
"""MessagePack of the sizes of short byte strings."""
_MIDDLE: Final = struct.Struct(">BH").pack
_LONG: Final = struct.Struct(">BI").pack
_NORMAL: Final = int(Priority.NORMAL)
_NO_CAUSE: Final = encode_field(None)
_BEGINS_THREAD: Final = b"\x91\xcf"
"""MessagePack of an array of one number of 64 bits, but for the number."""
_PLAIN_REST: Final = b"".join(map(encode_field, ((), None, False)))
"""What stands between the thread and the trace context: nobody is tagged, no time to live, no
error."""
_MOST = 1024
"""Templates that are kept: names of topics may be without end."""


class _Template:
    """What messages with one model to the same topics have in common.

    Args:
        to_json: encodes the payload.
        beginning: what stands between id and payload.
        topics: where they go.
    """

    def __init__(
        self, to_json: Callable[[Any], bytes], beginning: bytes, topics: tuple[str, ...]
    ) -> None:
        self.to_json = to_json
        self.beginning = beginning
        self.topics = topics


class _Ending:
    """What answers to one message have after their payload.

    Args:
        cause: id of that message; 0 where they answer none.
        priority: theirs.
        pieces: between two of them the id of the message itself stands, since it begins a thread.
    """

    def __init__(self, cause: int, priority: int, pieces: tuple[bytes, ...]) -> None:
        self.cause = cause
        self.priority = priority
        self.pieces = pieces


class Templates:
    """Knows how the plain messages of one sender look.

    Plain are those of models that fit into an envelope, without recipients and time to live.
    """

    def __init__(self) -> None:
        self._templates: dict[tuple[type, str | tuple[str, ...]], _Template] = {}
        self._ending = _ending_of(None)

    def fill(
        self, payload: Any, topics: str | tuple[str, ...], cause: Message | None
    ) -> EncodedMessage | None:
        """Make the message that carries a payload to `topics`, in answer to `cause`.

        Returns:
            None where no message like it was learnt, or the payload does not fit into one.
        """
        template = self._templates.get((type(payload), topics))
        if template is None:
            return None
        try:
            body = template.to_json(payload)
        except PydanticSerializationError:
            return None
        ending = self._ending  # others may set it: several threads may send
        if ending.cause != (0 if cause is None else cause.id):
            ending = self._ending = _ending_of(None if cause is None else cause.envelope)
        message_id, size = next_id(ending.priority), len(body)
        raw = message_id.to_bytes(8, "big")
        encoded = b"".join(
            (
                _HEAD,
                raw,
                template.beginning,
                _SHORT[size] if size < 256 else _size_of(size),
                body,
                raw.join(ending.pieces),
            )
        )
        return EncodedMessage(encoded, message_id, template.topics)

    def learn(self, payload: Any, topics: str | tuple[str, ...], message: Message) -> None:
        """Take a message as the pattern for such payloads to `topics`, where it is plain."""
        envelope = message.envelope
        if envelope.encoding is not Encoding.JSON or message.parts:
            return
        if len(self._templates) >= _MOST:
            self._templates.clear()
        fields = (envelope.sender, envelope.topics, envelope.format, envelope.encoding)
        beginning = b"".join(map(encode_field, fields))
        to_json = type(payload).__pydantic_serializer__.to_json
        self._templates[type(payload), topics] = _Template(to_json, beginning, envelope.topics)


def _ending_of(cause: Envelope | None) -> _Ending:
    if cause is None:
        return _Ending(0, _NORMAL, (_NO_CAUSE + _BEGINS_THREAD, _PLAIN_REST + encode_field(None)))
    question, rest = cause.id, _PLAIN_REST + encode_field(cause.traceparent)
    if not cause.thread:
        pieces: tuple[bytes, ...] = encode_field(question) + _BEGINS_THREAD, rest
    else:
        pieces = (encode_field(question) + encode_field(cause.thread) + rest,)
    return _Ending(question, id_priority(question), pieces)


def _size_of(size: int) -> bytes:
    """Return MessagePack of the size of a byte string of at least 256 bytes."""
    return _MIDDLE(0xC5, size) if size < 1 << 16 else _LONG(0xC6, size)
