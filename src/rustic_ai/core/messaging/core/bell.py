"""A descriptor that a thread can be woken by, which waits for sockets, too."""

from __future__ import annotations

import contextlib
import os

_ONE = (1).to_bytes(8, "little")


class Bell:
    """Readable (`fileno`) once rung, until hushed; rung from any thread or signal handler."""

    def __init__(self) -> None:
        if hasattr(os, "eventfd"):  # one descriptor, and much cheaper to make than a socket pair
            self._reader = self._writer = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        else:  # pragma: no cover - macOS
            self._reader, self._writer = os.pipe()
            os.set_blocking(self._reader, False)
            os.set_blocking(self._writer, False)
        self._closed = False

    def ring(self) -> None:
        """Wake everybody who waits, now and until it is hushed."""
        if not self._closed:
            with contextlib.suppress(OSError):  # full: it rings; closed at this moment: it is over
                os.write(self._writer, _ONE)

    def hush(self) -> None:
        """Wake nobody any more, until it is rung again."""
        with contextlib.suppress(BlockingIOError):  # it does not ring
            os.read(self._reader, 4096)

    def fileno(self) -> int:
        """Return the descriptor that is readable while it rings; -1 when closed."""
        return -1 if self._closed else self._reader

    def close(self) -> None:
        """Give the descriptors back; idempotent."""
        if not self._closed:
            self._closed = True
            for fd in {self._reader, self._writer}:
                os.close(fd)
