"""Pickles, with large buffers beside them: only where both ends ask for it."""

from __future__ import annotations

import pickle
from typing import Any

import msgspec

from rustic_ai.core.messaging.core.attachment import MAX_PARTS, Part
from rustic_ai.core.messaging.core.payload import Encoding

_PROTOCOL = 5
_Sizes = tuple[int, ...]
_encode = msgspec.msgpack.Encoder().encode
decode_sizes = msgspec.msgpack.Decoder(_Sizes).decode
"""Reads the sizes of a pickle and of its buffers from an envelope."""


def encode_pickle(value: Any) -> tuple[Encoding, bytes, tuple[Part, ...]]:
    """Pickle a value; its buffers (of arrays, of data frames) are not copied.

    Raises:
        TypeError: it cannot be pickled.
    """
    buffers: list[memoryview] = []

    def keep(buffer: pickle.PickleBuffer) -> bool:
        """Keep a buffer apart; True: it is to stand in the pickle itself."""
        if len(buffers) == MAX_PARTS - 1:
            return True
        try:
            buffers.append(buffer.raw())
        except BufferError:  # it is not contiguous
            return True
        return False

    try:
        head = pickle.dumps(value, _PROTOCOL, buffer_callback=keep)
    except Exception as e:
        raise TypeError(f"a {type(value).__qualname__} cannot be pickled: {e}") from e
    parts = (memoryview(head), *buffers)
    return Encoding.PICKLE, _encode([part.nbytes for part in parts]), parts


def decode_pickle(parts: list[memoryview]) -> Any:
    """Unpickle: run what the sender wrote. Its arrays are read-only, and lie over the parts."""
    return pickle.loads(parts[0], buffers=parts[1:])
