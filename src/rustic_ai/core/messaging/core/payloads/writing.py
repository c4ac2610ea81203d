"""Values that are a payload of their own, to what a message carries."""

from __future__ import annotations

from typing import Any

import msgspec

from rustic_ai.core.class_names import qualified_name
from rustic_ai.core.messaging.core.attachment import Part
from rustic_ai.core.messaging.core.payload import Encoding
from rustic_ai.core.messaging.core.payloads.kinds import format_for, kind_of
from rustic_ai.core.messaging.core.payloads.piece import Kind, Piece

_encode = msgspec.msgpack.Encoder().encode


def encode_value(value: Any) -> tuple[Encoding, bytes, tuple[Part, ...]]:
    """Encode a value that is neither a model nor a dict.

    Raises:
        TypeError: it is of no kind, or of one and cannot travel.
    """
    kind = _kind_of(value)
    about, part = kind.pack(value)
    piece = Piece(kind.name, part.nbytes, about)  # type: ignore[union-attr] # none is lost yet
    return Encoding.VALUE, _encode(piece), (part,)


def format_of_value(value: Any, *, pickled: bool) -> str:
    """Return the format of messages that are such a value: its kind's, or that of its class.

    Raises:
        TypeError: it is of no kind.
    """
    if not pickled:
        return _kind_of(value).name
    return format_for(type(value)) or qualified_name(type(value))


def _kind_of(value: Any) -> Kind:
    kind = kind_of(value)
    if kind is None:
        raise TypeError(
            f"a payload is a dict or a pydantic model, not a {type(value).__name__}; "
            "wrap it: {'value': ...}. Bytes, numpy arrays and Arrow tables are payloads as they "
            "are; anything else is one with pickle=True"
        )
    return kind
