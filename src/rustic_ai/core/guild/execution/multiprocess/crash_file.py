"""What an agent's process leaves for whoever asks why it died: its last lines, and its stacks.

An anonymous file of memory that process and engine share, so that nothing needs to be read or
written by anybody at the moment of death. First a ring of the last bytes on its standard error,
then what `faulthandler` writes, which needs neither the GIL nor memory.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import struct
import tempfile

_COUNT = struct.Struct("<Q")
_RING_START = 64
_STACKS_START = 8192
_RING = _STACKS_START - _RING_START
_MAX_STACKS = 64 << 10

STACKS_SIGNAL = signal.SIGUSR2
"""Has an agent's process write the stacks of all its threads, even while C code holds the GIL."""


def create_crash_file() -> int:
    """Make the file and return its descriptor."""
    fd = _anonymous("rustic-crash")
    os.ftruncate(fd, _STACKS_START)
    return fd


def clear_stacks(fd: int) -> None:
    """Forget the stacks that were written; engine and agent share the place of writing."""
    os.ftruncate(fd, _STACKS_START)
    os.lseek(fd, _STACKS_START, os.SEEK_SET)


def _anonymous(name: str) -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create(name, os.MFD_CLOEXEC)
    fd, path = tempfile.mkstemp()
    os.unlink(path)
    return fd


def write_stacks_to(fd: int) -> None:
    """In the agent: have crashes, and `STACKS_SIGNAL`, write the stacks there."""
    os.lseek(fd, _STACKS_START, os.SEEK_SET)
    faulthandler.enable(file=fd, all_threads=True)
    faulthandler.register(STACKS_SIGNAL, file=fd, all_threads=True)


class LastLines:
    """In the agent: remembers the end of what was written."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._written = 0

    def add(self, data: bytes) -> None:
        """Remember some more; only the newest 8 kB are kept."""
        data = data[-_RING:]
        place = self._written % _RING
        first = data[: _RING - place]
        os.pwrite(self._fd, first, _RING_START + place)
        os.pwrite(self._fd, data[len(first) :], _RING_START)
        self._written += len(data)
        os.pwrite(self._fd, _COUNT.pack(self._written), 0)


def read_last_lines(fd: int, lines: int = 20) -> str:
    """Return the last lines that `LastLines` remembered."""
    (written,) = _COUNT.unpack(os.pread(fd, _COUNT.size, 0))
    ring = os.pread(fd, _RING, _RING_START)
    if written > _RING:
        place = written % _RING
        text = (ring[place:] + ring[:place]).partition(b"\n")[2]  # the oldest line is cut
    else:
        text = ring[:written]
    return "\n".join(text.decode(errors="replace").splitlines()[-lines:])


def read_stacks(fd: int) -> str:
    """Return the stacks that were written; empty where none were."""
    return os.pread(fd, _MAX_STACKS, _STACKS_START).decode(errors="replace").strip()
