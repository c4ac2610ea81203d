"""An event that a selector can wait for beside sockets."""

from __future__ import annotations

import contextlib
import os
from typing import Self


class StopSignal:
    """Set once, from any thread or signal handler; readable (`fileno`) from then on."""

    def __init__(self) -> None:
        if hasattr(os, "eventfd"):  # one descriptor, and much cheaper to make than a socket pair
            self._reader = self._writer = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        else:  # pragma: no cover - macOS
            self._reader, self._writer = os.pipe()
            os.set_blocking(self._writer, False)
        self._set = self._closed = False

    def set(self) -> None:
        """Wake everybody who waits, now and later."""
        if not (self._set or self._closed):
            self._set = True
            with contextlib.suppress(OSError):  # closed at this moment: nobody waits any more
                os.write(self._writer, (1).to_bytes(8, "little"))

    def is_set(self) -> bool:
        """Say whether it was set."""
        return self._set

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when set; -1 when closed."""
        return -1 if self._closed else self._reader

    def close(self) -> None:
        """Give the descriptors back; idempotent."""
        if not self._closed:
            self._closed = True
            for fd in {self._reader, self._writer}:
                os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
