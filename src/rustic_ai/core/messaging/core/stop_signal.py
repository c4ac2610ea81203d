"""An event that a selector can wait for beside sockets."""

from __future__ import annotations

from typing import Self

from rustic_ai.core.messaging.core.bell import Bell


class StopSignal:
    """Set once, from any thread or signal handler; readable (`fileno`) from then on."""

    def __init__(self) -> None:
        self._bell = Bell()
        self.stopped = False
        """What `is_set` says."""

    def set(self) -> None:
        """Wake everybody who waits, now and later."""
        if not self.stopped:
            self.stopped = True
            self._bell.ring()

    def is_set(self) -> bool:
        """Say whether it was set."""
        return self.stopped

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when set; -1 when closed."""
        return self._bell.fileno()

    def close(self) -> None:
        """Give the descriptors back; idempotent."""
        self._bell.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
