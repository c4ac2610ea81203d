"""Payloads to bytes and back; models as JSON by pydantic itself, dicts as MessagePack.

MessagePack keeps what JSON would lose (NaN, bytes); pydantic's own JSON is the fastest way from
bytes straight into a validated model.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import Any

import msgspec
from pydantic import BaseModel
from pydantic_core import SchemaValidator

_encode_msgpack = msgspec.msgpack.Encoder().encode
_decode_msgpack = msgspec.msgpack.Decoder().decode
_decode_json = msgspec.json.Decoder().decode


class Encoding(IntEnum):
    """How the bytes of a payload are to be read."""

    MSGPACK = 0
    JSON = 1


_MSGPACK, _JSON = Encoding.MSGPACK, Encoding.JSON  # looking members up costs time


def encode_payload(payload: Any) -> tuple[Encoding, bytes]:
    """Turn a payload into bytes.

    Raises:
        TypeError: it is neither a dict nor a model, or holds a value that cannot travel.
    """
    if isinstance(payload, BaseModel):
        return _JSON, payload.__pydantic_serializer__.to_json(payload)
    if not isinstance(payload, dict):
        raise TypeError(
            f"a payload is a dict or a pydantic model, not a {type(payload).__name__}; "
            "wrap it: {'value': ...}"
        )
    try:
        return _MSGPACK, _encode_msgpack(payload)
    except (TypeError, ValueError, OverflowError, RecursionError) as e:
        path = _find_unencodable(payload, "payload")
        raise TypeError(f"{path} cannot travel in a message: {e}") from e


def decode_payload(encoding: Encoding, body: bytes) -> dict[str, Any]:
    """Turn the bytes of a payload into a dict."""
    found: dict[str, Any] = (_decode_json if encoding else _decode_msgpack)(body)
    return found


def decode_model(model: type[BaseModel], encoding: Encoding, body: bytes) -> BaseModel:
    """Turn the bytes of a payload straight into a validated model.

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


def _find_unencodable(value: Any, path: str, depth: int = 0) -> str:
    """Say where in a payload the value is that cannot travel, and what it is."""
    children: list[tuple[Any, str]] = []
    if isinstance(value, dict):
        children = [(v, f"{path}[{k!r}]") for k, v in value.items()]
    elif isinstance(value, list | tuple | set | frozenset):
        children = [(v, f"{path}[{i}]") for i, v in enumerate(value)]
    if depth < 100:
        for child, child_path in children:
            try:
                _encode_msgpack(child)
            except (TypeError, ValueError, OverflowError, RecursionError):
                return _find_unencodable(child, child_path, depth + 1)
    return f"{path} (a {type(value).__name__})"
