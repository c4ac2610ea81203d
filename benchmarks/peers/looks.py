"""What receivers do with an array: the same, whoever sends it."""

from __future__ import annotations

from typing import Any, Literal

Look = Literal["last", "sum"]


def numbered(size: int) -> Any:
    """Return an array of `size` bytes: ones, of which the last is to be its number."""
    import numpy as np

    return np.ones(size // 8)


def number_of(array: Any, look: Look) -> float:
    """Return the number of an array: its last element, or by summing all of them."""
    return float(array[-1] if look == "last" else array.sum() - (len(array) - 1))
