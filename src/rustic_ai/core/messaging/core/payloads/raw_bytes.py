"""Bytes, bytearrays and memoryviews: one kind, received as bytes or as a view."""

from __future__ import annotations

import pickle
from typing import Any

from rustic_ai.core.messaging.core.attachment import Part
from rustic_ai.core.messaging.core.payloads.piece import Piece


class BytesKind:
    """Sends what is contiguous as it lies there; receives a view."""

    name = "bytes"

    def takes(self, cls: type) -> bool:
        """Say whether it is one of the three."""
        return issubclass(cls, bytes | bytearray | memoryview)

    def pack(self, value: Any) -> tuple[Any, Part]:
        """Note nothing; whatever a memoryview is of, its bytes are sent."""
        if isinstance(value, memoryview) and not value.c_contiguous:
            return None, memoryview(value.tobytes())
        return None, pickle.PickleBuffer(value).raw()

    def unpack(self, about: Any, data: memoryview) -> memoryview:  # noqa: ARG002 - of the protocol
        """Return the view itself."""
        return data

    def describe(self, piece: Piece) -> dict[str, str]:
        """Tell the size."""
        return {"bytes": f"{piece.size:,} bytes"}
