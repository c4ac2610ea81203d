"""Payloads to bytes and back; models as JSON by pydantic itself, dicts as MessagePack.

MessagePack keeps what JSON would lose (NaN, bytes); pydantic's own JSON is the fastest way from
bytes straight into a validated model. What neither of them takes is for `payloads`.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import Any

import msgspec
from pydantic import BaseModel
from pydantic_core import PydanticSerializationError, SchemaValidator

from rustic_ai.core.messaging.core.attachment import Part

_encode_msgpack = msgspec.msgpack.Encoder().encode
_decode_msgpack = msgspec.msgpack.Decoder().decode
_decode_json = msgspec.json.Decoder().decode


class Encoding(IntEnum):
    """How the bytes of a payload are to be read; all but the first two come with parts."""

    MSGPACK = 0
    JSON = 1
    MSGPACK_PARTS = 2
    """A dict with values that lie in parts; see `payloads.nested`."""
    JSON_PARTS = 3
    """A model with such values."""
    VALUE = 4
    """A value that lies in a part; see `payloads.kinds`."""
    PICKLE = 5


_MSGPACK, _JSON = Encoding.MSGPACK, Encoding.JSON  # looking members up costs time


def encode_payload(payload: Any) -> tuple[Encoding, bytes, tuple[Part, ...]]:
    """Turn a payload into bytes, and parts for what is large in it.

    Raises:
        TypeError: it is nothing that can be a payload, or holds a value that cannot travel.
    """
    if isinstance(payload, BaseModel):
        return encode_model(payload)
    if isinstance(payload, dict):
        try:
            return _MSGPACK, _encode_msgpack(payload), ()
        except (TypeError, ValueError, OverflowError, RecursionError):
            from rustic_ai.core.messaging.core.payloads.nested import encode_dict

            return encode_dict(payload)
    from rustic_ai.core.messaging.core.payloads.writing import encode_value

    return encode_value(payload)


def encode_model(model: BaseModel) -> tuple[Encoding, bytes, tuple[Part, ...]]:
    """Turn a model into bytes, and parts for what is large in it; errors as of `encode_payload`."""
    try:
        return _JSON, model.__pydantic_serializer__.to_json(model), ()
    except PydanticSerializationError as e:
        from rustic_ai.core.messaging.core.payloads.nested import encode_with_parts

        return encode_with_parts(model, e)


def decode_payload(encoding: Encoding, body: bytes) -> dict[str, Any]:
    """Turn the bytes of a payload without parts into a dict."""
    found: dict[str, Any] = (_decode_json if encoding else _decode_msgpack)(body)
    return found


def decode_model(model: type[BaseModel], encoding: Encoding, body: bytes) -> BaseModel:
    """Turn the bytes of a payload without parts straight into a validated model.

    Raises:
        pydantic.ValidationError: the payload is not a valid `model`.
    """
    if encoding is _JSON:
        return model.__pydantic_validator__.validate_json(body)  # type: ignore[no-any-return]
    return model.model_validate(_decode_msgpack(body))


def json_parser_of(model: type[BaseModel]) -> Callable[[bytes], BaseModel] | None:
    """Return what turns JSON into a model; None where the model is not complete yet."""
    validator = model.__pydantic_validator__
    return validator.validate_json if isinstance(validator, SchemaValidator) else None
