"""An event that a selector can wait for beside sockets."""

from __future__ import annotations

import contextlib
import socket
from typing import Self


class StopSignal:
    """Set once, from any thread or signal handler; readable (`fileno`) from then on."""

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        self._set = False

    def set(self) -> None:
        """Wake everybody who waits, now and later."""
        if not self._set:
            self._set = True
            with contextlib.suppress(OSError):  # closed: nobody waits any more
                self._writer.send(b"x")

    def is_set(self) -> bool:
        """Say whether it was set."""
        return self._set

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when set."""
        return self._reader.fileno()

    def close(self) -> None:
        """Give the descriptors back."""
        self._reader.close()
        self._writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
