"""Which kinds of values can be a payload, and which class names which."""

from __future__ import annotations

import sys
from typing import Any

import msgspec

from rustic_ai.core.errors import PayloadError
from rustic_ai.core.messaging.core.payloads.arrays import ArrayKind
from rustic_ai.core.messaging.core.payloads.piece import Kind, Piece
from rustic_ai.core.messaging.core.payloads.raw_bytes import BytesKind
from rustic_ai.core.messaging.core.payloads.tables import TableKind

_KINDS: tuple[Kind, ...] = (
    BytesKind(),
    ArrayKind(),
    TableKind("Table"),
    TableKind("RecordBatch"),
)
_BY_NAME = {kind.name: kind for kind in _KINDS}
decode_piece = msgspec.msgpack.Decoder(Piece).decode


def kind_of(value: Any) -> Kind | None:
    """Return the kind of a value, None where it has none."""
    cls = type(value)
    return next((kind for kind in _KINDS if kind.takes(cls)), None)


def format_for(cls: type) -> str | None:
    """Return the format of messages that arrive as values of exactly that class."""
    if cls in {bytes, memoryview}:
        return "bytes"
    for name in ("numpy.ndarray", "pyarrow.Table", "pyarrow.RecordBatch"):
        module, _, class_name = name.partition(".")
        if cls is getattr(sys.modules.get(module), class_name, None):
            return name
    return None


def unpack(piece: Piece, data: memoryview, format_name: str) -> Any:
    """Return the value of a piece.

    Raises:
        PayloadError: the data is no such value, or the library for it is missing here.
    """
    kind = _BY_NAME.get(piece.kind)
    if kind is None:
        raise PayloadError(format=format_name, reason=f"it holds a {piece.kind!r}: unknown here")
    try:
        return kind.unpack(piece.about, data)
    except Exception as e:
        raise PayloadError(format=format_name, reason=f"{type(e).__name__}: {e}") from e


def describe(piece: Piece) -> dict[str, str]:
    """Return a few words for logs, whatever the piece says."""
    kind = _BY_NAME.get(piece.kind)
    try:
        if kind is not None:
            return kind.describe(piece)
    except (TypeError, ValueError):  # it was not made by `pack`
        pass
    return {piece.kind: f"{piece.size:,} bytes"}
