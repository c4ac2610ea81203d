"""Waiting for many descriptors; a thinner layer than `selectors`, which costs 2 us a turn."""

from __future__ import annotations

import select

_FD_SETSIZE = 1024


def wait(poll: select.poll, patience: float | None) -> list[tuple[int, int]]:
    """Wait up to `patience` milliseconds, or for ever, for what `poll` looks at.

    Python runs the handlers of signals between two bytecodes. So one whose signal came while
    compiled code ran is run here, before the waiting: this module is not compiled.
    """
    return poll.poll(patience)


if hasattr(select, "epoll"):

    class Poller:
        """The kernel's epoll. Linux."""

        def __init__(self) -> None:
            self._epoll = select.epoll()
            self._is_selectable = self._epoll.fileno() < _FD_SETSIZE
            self.register = self._epoll.register
            self.modify = self._epoll.modify
            self.unregister = self._epoll.unregister
            self.close = self._epoll.close
            self.poll = self._epoll.poll
            """Waits up to `timeout` seconds, or for ever; returns descriptors and their events."""

        def poll_briefly(self, timeout: float) -> list[tuple[int, int]]:
            """Wait less than the millisecond that `poll` counts in."""
            if self._is_selectable and not select.select((self._epoll,), (), (), timeout)[0]:
                return []
            return self._epoll.poll(0 if self._is_selectable else timeout)

else:  # pragma: no cover - macOS

    class Poller:  # type: ignore[no-redef]
        """POSIX's poll."""

        def __init__(self) -> None:
            self._poll = select.poll()
            self.register = self._poll.register
            self.modify = self._poll.modify
            self.unregister = self._poll.unregister

        def poll(self, timeout: float | None) -> list[tuple[int, int]]:
            """Wait up to `timeout` seconds, or for ever; return descriptors and their events."""
            return self._poll.poll(None if timeout is None else timeout * 1000)

        poll_briefly = poll

        def close(self) -> None:
            """Do nothing: nothing is held."""
