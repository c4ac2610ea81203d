"""What a message carries, to the value that somebody wants."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from rustic_ai.core.errors import PayloadError, PickleRefusedError
from rustic_ai.core.messaging.core.attachment import Part
from rustic_ai.core.messaging.core.payload import Encoding, decode_payload
from rustic_ai.core.messaging.core.payloads.kinds import decode_piece, describe, unpack
from rustic_ai.core.messaging.core.payloads.nested import decode_nest, fill
from rustic_ai.core.messaging.core.payloads.pickled import decode_pickle, decode_sizes
from rustic_ai.core.messaging.core.payloads.piece import Piece, data_of

if TYPE_CHECKING:
    from rustic_ai.core.messaging.core.message import Message


def payload_of(message: Message) -> Any:
    """Return the payload as what it is; of a model, dicts and lists with the values in them.

    Raises:
        PickleRefusedError: it is pickled.
        PayloadGoneError: a part of it is lost.
        PayloadError: it cannot be read.
    """
    value = _read(message)
    return bytes(value) if isinstance(value, memoryview) else value


def payload_as(message: Message, wanted: type, *, pickle: bool, trusted: bool) -> Any:
    """Return the payload as an object of a class: a model, or what is a payload as it is.

    Args:
        message: the message.
        wanted: the class.
        pickle: whoever asks takes pickles.
        trusted: the messages come from this user's own processes only.

    Raises:
        PickleRefusedError: it is pickled, and one of both is not so.
        PayloadGoneError: a part of it is lost.
        PayloadError: it is something else, or cannot be read.
    """
    if message.envelope.encoding is Encoding.PICKLE:
        value = _unpickled(message, pickle=pickle, trusted=trusted)
    elif wanted is memoryview:
        value = _read(message)
    else:
        value = message.payload
    if issubclass(wanted, BaseModel) and isinstance(value, dict):
        try:
            # Not strict: JSON has no tuples, sets or dates, and strict JSON takes no arrays.
            return wanted.model_validate(value, strict=False)
        except ValidationError as e:
            raise PayloadError(format=message.format, reason=str(e)) from e
    if not isinstance(value, wanted):
        reason = f"it is a {type(value).__qualname__}, not a {wanted.__qualname__}"
        raise PayloadError(format=message.format, reason=reason)
    return value


def described(message: Message) -> Any:
    """Return the payload for logs: large values, and what cannot be read, in a few words."""
    envelope = message.envelope
    encoding = envelope.encoding
    try:
        if encoding is Encoding.VALUE:
            return describe(decode_piece(envelope.payload))
        if encoding is Encoding.PICKLE:
            return {"pickle": f"{sum(decode_sizes(envelope.payload)):,} bytes"}
        if encoding in {Encoding.JSON_PARTS, Encoding.MSGPACK_PARTS}:
            nest = decode_nest(envelope.payload)
            return fill(encoding, nest, lambda number: describe(nest.pieces[number]))
    except (ValueError, IndexError) as e:  # msgspec's and pydantic's errors are ValueErrors
        return {"unreadable": str(e)}
    return message.payload


def _read(message: Message) -> Any:
    envelope = message.envelope
    encoding = envelope.encoding
    if encoding is Encoding.PICKLE:
        return _unpickled(message, pickle=False, trusted=False)
    try:
        if encoding is Encoding.VALUE:
            (part,) = message.parts
            return _value(decode_piece(envelope.payload), part, message)
        if encoding in {Encoding.JSON_PARTS, Encoding.MSGPACK_PARTS}:
            nest = decode_nest(envelope.payload)
            values = [
                _value(piece, part, message)
                for piece, part in zip(nest.pieces, message.parts, strict=True)
            ]
            return fill(encoding, nest, values.__getitem__)
    except PayloadError:
        raise
    except (ValueError, IndexError) as e:
        raise PayloadError(format=message.format, reason=str(e)) from e
    return decode_payload(encoding, envelope.payload)


def _value(piece: Piece, part: Part, message: Message) -> Any:
    return unpack(piece, data_of(part, piece.size, message.format), message.format)


def _unpickled(message: Message, *, pickle: bool, trusted: bool) -> Any:
    if not pickle:
        raise PickleRefusedError(
            format=message.format, reason="it is pickled, and nobody here has asked for pickles"
        )
    if not trusted:
        raise untrusted(message.format)
    try:
        sizes = decode_sizes(message.envelope.payload)
        found = zip(message.parts, sizes, strict=True)
        return decode_pickle([data_of(part, size, message.format) for part, size in found])
    except PayloadError:
        raise
    except Exception as e:
        reason = f"it cannot be unpickled: {type(e).__name__}: {e}"
        raise PayloadError(format=message.format, reason=reason) from e


def untrusted(format_name: str) -> PickleRefusedError:
    """Return the error of a pickle on a backend that does not prove whose its messages are."""
    return PickleRefusedError(
        format=format_name,
        reason="this messaging does not prove that all who can publish are the same user, "
        "and a pickle runs whatever its sender has put into it",
        hint="send a model, an array or a table; or use the embedded server",
    )
