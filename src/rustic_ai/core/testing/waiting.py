"""Waiting in tests: for a condition, with a limit."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(predicate: Callable[[], T], timeout: float = 10.0) -> T:
    """Wait until `predicate` returns something true, and return that.

    Raises:
        AssertionError: it did not within `timeout` seconds; says what it returned last.
    """
    deadline = time.monotonic() + timeout
    while not (seen := predicate()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout:g} s; seen last: {seen!r}")
        time.sleep(0.005)
    return seen
