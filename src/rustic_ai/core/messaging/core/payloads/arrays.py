"""numpy arrays: dtype, shape and order in the envelope, the elements in a part."""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Callable, Iterable, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from rustic_ai.core.messaging.core.attachment import InBody, Part
from rustic_ai.core.messaging.core.payloads.piece import Piece

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]
    Allocated = MutableMapping[int, Array]

_PLAIN_KINDS = "?biufcmMSUV"
_WORDS = {"b": "bool", "i": "int", "u": "uint", "f": "float", "c": "complex"}


class ArrayKind:
    """Sends a contiguous array from where it lies, any other straight into its place."""

    name = "numpy.ndarray"

    def takes(self, cls: type) -> bool:
        """Say whether it is an array class; `pack` refuses those that would lose something."""
        numpy = sys.modules.get("numpy")
        return numpy is not None and issubclass(cls, numpy.ndarray)

    def pack(self, value: Any) -> tuple[Any, Part]:
        """Note dtype, shape and order."""
        import numpy as np

        if type(value) not in {np.ndarray, np.memmap}:
            raise TypeError(
                f"a {type(value).__module__}.{type(value).__qualname__} is more than its "
                "elements: send numpy.asarray(...) of it, or the whole with pickle=True"
            )
        described = _describe(value.dtype)
        if value.flags.c_contiguous:
            return [described, value.shape, "C"], _bytes_of(value)
        if value.flags.f_contiguous:
            return [described, value.shape, "F"], _bytes_of(value.T)
        return [described, value.shape, "C"], _Scattered(value)

    def unpack(self, about: Any, data: memoryview) -> Array:
        """Return an array over `data`; a copy where its elements would not be aligned there."""
        import numpy as np

        described, shape, order = about
        dtype = np.lib.format.descr_to_dtype(_tuples(described))
        _check(dtype)  # an array of objects over bytes would be a crash
        array = np.ndarray(tuple(shape), dtype, data, order=order)
        if array.nbytes != data.nbytes:
            raise ValueError(f"{data.nbytes:,} bytes for {math.prod(shape):,} elements of {dtype}")
        if not array.flags.aligned:
            array = array.copy(order="K")
            array.flags.writeable = False
        return array

    def describe(self, piece: Piece) -> dict[str, str]:
        """Tell dtype and shape, without numpy."""
        described, shape, _ = piece.about
        return {"array": f"{_name_of(described)}{list(shape)}"}


class _Scattered:
    """The source of an array that does not lie in one piece."""

    def __init__(self, array: Array) -> None:
        self._array = array
        self.nbytes: int = array.nbytes

    def write_to(self, target: memoryview) -> None:
        """Copy the elements to where they are to be, in C order."""
        import numpy as np

        array = self._array
        np.copyto(np.ndarray(array.shape, array.dtype, target), array)


def _bytes_of(array: Array) -> memoryview:
    """Return the memory of a C-contiguous array, whatever its dtype; it keeps the array alive."""
    import numpy as np

    if not array.nbytes:
        return memoryview(b"")
    return memoryview(cast("Any", array.reshape(-1).view(np.ndarray).view(np.uint8)))


@functools.lru_cache(maxsize=256)
def _describe(dtype: np.dtype[Any]) -> Any:
    """Return a dtype as plain data.

    Raises:
        TypeError: it has none that says it all.
    """
    import numpy as np

    _check(dtype)
    try:
        described = np.lib.format.dtype_to_descr(dtype)
        same = np.lib.format.descr_to_dtype(described) == dtype
    except ValueError:
        same = False
    if not same:
        raise TypeError(f"arrays of dtype {dtype} travel only with pickle=True")
    return described


def _check(dtype: np.dtype[Any]) -> None:
    if dtype.hasobject or dtype.kind not in _PLAIN_KINDS or dtype.isbuiltin == 2:
        raise TypeError(
            f"arrays of dtype {dtype} hold more than plain numbers, text or records: "
            "they travel only with pickle=True"
        )


def _tuples(described: Any, *, fields: bool = True) -> Any:
    """Return what MessagePack made of a description as numpy wants it: a list of tuples."""
    if isinstance(described, str) or not fields:
        return tuple(described) if isinstance(described, list) else described
    return [
        (
            _tuples(name, fields=False),
            _tuples(of),
            *(_tuples(shape, fields=False) for shape in rest),
        )
        for name, of, *rest in described
    ]


def _name_of(described: Any) -> str:
    if not isinstance(described, str):
        return "record"
    word, size = _WORDS.get(described[1:2]), described[2:]
    if word is None or not size.isdecimal():
        return described
    return word if word == "bool" else f"{word}{int(size) * 8}"


# Arrays that are filled where they are to be sent from


def new_array(
    allocate: Callable[[int], memoryview], shape: int | Sequence[int], dtype: Any
) -> Array:
    """Return a writable array in memory of `allocate`.

    Raises:
        TypeError: arrays of that dtype cannot travel.
    """
    import numpy as np

    wanted: np.dtype[Any] = np.dtype(dtype)
    _check(wanted)
    size = math.prod((shape,) if isinstance(shape, int) else shape) * wanted.itemsize
    return np.ndarray(shape, wanted, allocate(size))


def freeze(payload: Any, parts: Iterable[Part], allocated: Allocated) -> None:
    """Make read-only what was allocated and is sent now: `payload`, and what holds its elements."""
    import numpy as np

    for part in parts:
        source = part.part if isinstance(part, InBody) else part
        held = source.obj if isinstance(source, memoryview) else getattr(source, "_array", None)
        while isinstance(held, np.ndarray):
            if allocated.get(id(held)) is held:
                held.flags.writeable = False
                if isinstance(payload, np.ndarray):
                    payload.flags.writeable = False
                break
            held = cast("Any", held.base)
