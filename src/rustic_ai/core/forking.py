"""Keeps a fork of the program from holding open what must close when the program ends.

End of file is how servers, helpers and agents learn that a program is gone. A forked copy of it
would hold its sockets open; so the copy closes them first thing.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from typing import Protocol


class ClosesInForks(Protocol):
    """Something that a forked copy of this program must let go of."""

    def close_in_fork(self) -> None:
        """Close the descriptors of this copy; touch nothing that is shared with the original."""


_guarded: weakref.WeakSet[ClosesInForks] = weakref.WeakSet()


def guard_forks(owner: ClosesInForks) -> None:
    """Have `owner.close_in_fork` called in every process forked from here by Python."""
    _guarded.add(owner)


class ForkGuard:
    """Guards, for as long as it lives, an object that no weak reference can be made to.

    Args:
        close: what `ClosesInForks.close_in_fork` does.
    """

    def __init__(self, close: Callable[[], None]) -> None:
        self.close_in_fork = close
        guard_forks(self)


def _close_all() -> None:
    for owner in list(_guarded):
        owner.close_in_fork()
    _guarded.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_all)
