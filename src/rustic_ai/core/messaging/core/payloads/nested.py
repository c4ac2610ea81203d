"""Models and dicts with arrays, tables or views in them, which become parts of their message.

The plain ways (`payload.py`) are tried first; this is for what they refuse. A model is JSON all the
same, with a text that cannot be anybody else's where a value was taken out; a dict is MessagePack,
with an extension there.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import msgspec
from pydantic import BaseModel
from pydantic_core import PydanticSerializationError, from_json

from rustic_ai.core.messaging.core.attachment import MAX_PARTS, Part
from rustic_ai.core.messaging.core.payload import Encoding
from rustic_ai.core.messaging.core.payloads.kinds import kind_of
from rustic_ai.core.messaging.core.payloads.piece import Piece

_EXTENSION = 80
"""Type of the MessagePack extension that stands for a piece."""

Encoded = tuple[Encoding, bytes, tuple[Part, ...]]
Place = Callable[[int], Any]
"""Returns the value of the piece of that number."""


class Nest(msgspec.Struct, frozen=True, array_like=True):
    """A payload without its pieces, and what each of them is."""

    body: bytes
    pieces: tuple[Piece, ...]
    mark: str = ""
    """What the texts begin with that stand for pieces; the number follows."""


encode_nest = msgspec.msgpack.Encoder().encode
decode_nest = msgspec.msgpack.Decoder(Nest).decode


class _Collector:
    """Takes values out of a payload while it is encoded."""

    def __init__(self) -> None:
        self.pieces: list[Piece] = []
        self.parts: list[Part] = []
        self.error: TypeError | None = None

    def take(self, value: Any) -> int | None:
        """Keep a value and return its number; None where it is of no kind.

        Raises:
            TypeError: it is of one, but cannot travel.
        """
        kind = kind_of(value)
        if kind is None:
            return None
        try:
            self._check_room()
            about, part = kind.pack(value)
        except TypeError as e:
            self.error = e  # pydantic would only show its text
            raise
        self.parts.append(part)
        self.pieces.append(Piece(kind.name, part.nbytes, about))  # type: ignore[union-attr]
        return len(self.parts) - 1

    def _check_room(self) -> None:
        if len(self.parts) == MAX_PARTS:
            raise TypeError(f"a payload holds {MAX_PARTS:,} arrays, tables and views at most")

    def nest(self, encoding: Encoding, body: bytes, mark: str = "") -> Encoded:
        """Return the whole."""
        nest = Nest(body, tuple(self.pieces), mark)
        return encoding, encode_nest(nest), tuple(self.parts)


def encode_with_parts(model: BaseModel, refused: PydanticSerializationError) -> Encoded:
    """Encode a model that plain JSON has `refused`.

    Raises:
        TypeError: one of its arrays cannot travel, or it holds bytes that would come back changed.
        PydanticSerializationError: it holds something else.
    """
    collector = _Collector()
    mark = f"\0{os.urandom(8).hex()}:"

    def stand_in(value: Any) -> str:
        nonlocal refused
        number = collector.take(value)
        if number is None:  # this, not the array that came first, is what cannot travel
            refused = PydanticSerializationError(f"Unable to serialize unknown type: {type(value)}")
            raise refused
        return f"{mark}{number}"

    try:
        body = model.__pydantic_serializer__.to_json(model, fallback=stand_in)
    except PydanticSerializationError:
        raise collector.error or refused from None
    bytes_as = model.model_config.get("ser_json_bytes", "utf8")
    if bytes_as != "utf8":
        raise TypeError(
            f"{type(model).__qualname__} has arrays, and ser_json_bytes={bytes_as!r}, which is not "
            "undone where arrays are put in: make its bytes memoryviews, or leave that setting out"
        )
    return collector.nest(Encoding.JSON_PARTS, body, mark)


def encode_dict(payload: dict[str, Any]) -> Encoded:
    """Encode a dict that plain MessagePack has refused.

    Raises:
        TypeError: it holds a value that cannot travel; the text names its path.
    """
    collector = _Collector()
    try:
        body = _encode_with(collector, payload)
    except (TypeError, ValueError, OverflowError, RecursionError) as e:
        raise TypeError(f"{_find_unencodable(payload)} cannot travel in a message: {e}") from e
    return collector.nest(Encoding.MSGPACK_PARTS, body)


def _encode_with(collector: _Collector, payload: Any) -> bytes:
    def stand_in(value: Any) -> Any:
        number = collector.take(value)
        if number is None:
            raise TypeError(f"Encoding objects of type {type(value).__name__} is unsupported")
        return msgspec.msgpack.Ext(_EXTENSION, number.to_bytes(4, "little"))

    return msgspec.msgpack.Encoder(enc_hook=stand_in).encode(payload)


def _find_unencodable(value: Any, path: str = "payload", depth: int = 0) -> str:
    """Say where in a payload the value is that cannot travel, and what it is."""
    children: list[tuple[Any, str]] = []
    if isinstance(value, dict):
        children = [(v, f"{path}[{k!r}]") for k, v in value.items()]
    elif isinstance(value, list | tuple | set | frozenset):
        children = [(v, f"{path}[{i}]") for i, v in enumerate(value)]
    if depth < 100:
        for child, child_path in children:
            try:
                _encode_with(_Collector(), child)
            except (TypeError, ValueError, OverflowError, RecursionError):
                return _find_unencodable(child, child_path, depth + 1)
    return f"{path} (a {type(value).__name__})"


def fill(encoding: Encoding, nest: Nest, place: Place) -> Any:
    """Return the payload as dicts and lists, with what `place` returns where pieces were.

    Raises:
        ValueError: the body is not what it should be.
        IndexError: it names a piece that is not there.
    """
    if encoding is Encoding.JSON_PARTS:
        return _filled(from_json(nest.body), nest.mark, place)

    def put(code: int, data: memoryview) -> Any:
        if code == _EXTENSION:
            return place(int.from_bytes(data, "little"))
        return msgspec.msgpack.Ext(code, bytes(data))

    return msgspec.msgpack.Decoder(ext_hook=put).decode(nest.body)


def _filled(value: Any, mark: str, place: Place) -> Any:
    if isinstance(value, str):
        return place(int(value[len(mark) :])) if mark and value.startswith(mark) else value
    if isinstance(value, dict):
        return {key: _filled(child, mark, place) for key, child in value.items()}
    if isinstance(value, list):
        return [_filled(child, mark, place) for child in value]
    return value
