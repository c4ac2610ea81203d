"""Memory files that cannot shrink. Linux.

Whoever maps one that does is killed when it touches what is gone.
"""

from __future__ import annotations

import contextlib
import fcntl
import os

SUPPORTED = hasattr(os, "memfd_create")
SHAPE_SEALS = getattr(fcntl, "F_SEAL_SHRINK", 0) | getattr(fcntl, "F_SEAL_GROW", 0)


def make_sealed(name: str, size: int) -> int:
    """Return the descriptor of a new file of `size` bytes, which everybody who has it can write.

    Raises:
        OSError: there is no memory, or no descriptor left.
    """
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, size)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SHAPE_SEALS | fcntl.F_SEAL_SEAL)
    except BaseException:
        os.close(fd)
        raise
    return fd


def sealed_size(fd: int) -> int | None:
    """Return the size of a file that cannot shrink, in bytes; None of anything else."""
    with contextlib.suppress(OSError):
        if fcntl.fcntl(fd, fcntl.F_GET_SEALS) & SHAPE_SEALS == SHAPE_SEALS:
            return os.fstat(fd).st_size
    return None
