"""What travels of a message: a record, as MessagePack, around a payload that stays bytes."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from rustic_ai.core.messaging.core.payload import Encoding


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


encode_field = msgspec.msgpack.Encoder().encode
"""Returns a field of an envelope as MessagePack."""
encode_envelope = msgspec.msgpack.Encoder().encode
"""Returns an envelope as MessagePack; the payload inside is not touched."""
decode_envelope = msgspec.msgpack.Decoder(Envelope).decode
"""Reads an envelope; raises `msgspec.DecodeError` where it is none."""
