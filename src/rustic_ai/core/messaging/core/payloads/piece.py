"""A value that lies in a part of its message: what the envelope says of it."""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

from rustic_ai.core.errors import PayloadError, PayloadGoneError
from rustic_ai.core.messaging.core.attachment import LostPart, Part


class Piece(msgspec.Struct, frozen=True, array_like=True):
    """One value: of which kind it is, the size of its part in bytes, and what its kind notes."""

    kind: str
    size: int
    about: Any = None


class Kind(Protocol):
    """How values of some classes become a part, and a part becomes a value."""

    name: str
    """The format of messages that are such a value."""

    def takes(self, cls: type) -> bool:
        """Say whether values of a class are of this kind."""

    def pack(self, value: Any) -> tuple[Any, Part]:
        """Return what is to be noted, as MessagePack can hold it, and the part.

        Raises:
            TypeError: this value cannot travel that way; the text says what can be done.
        """

    def unpack(self, about: Any, data: memoryview) -> Any:
        """Return the value, over `data` where that is possible, and read-only.

        Raises:
            Exception: whatever data can cause that does not come from `pack`.
        """

    def describe(self, piece: Piece) -> dict[str, str]:
        """Return a few words for logs."""


def data_of(part: Part, size: int, format_name: str) -> memoryview:
    """Return the bytes of a part, read-only; those of an outgoing message may have to be written.

    Raises:
        PayloadGoneError: it is lost.
        PayloadError: it has another size than the envelope says.
    """
    if isinstance(part, LostPart):
        raise PayloadGoneError(format=format_name, reason=part.reason)
    if isinstance(part, memoryview):
        data = part
    else:
        data = memoryview(bytearray(part.nbytes))
        part.write_to(data)
    if data.nbytes != size:
        if not data.nbytes:
            raise PayloadGoneError(
                format=format_name, reason="it was lost before the message was stored here"
            )
        raise PayloadError(
            format=format_name, reason=f"a part has {data.nbytes:,} bytes instead of {size:,}"
        )
    return data.toreadonly()
