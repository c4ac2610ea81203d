"""The one thread that watches every agent's process of an engine.

It waits on sockets, process sentinels and timers, never polls, and nothing that runs on it blocks.
It is the only writer of an agent's state.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import logging
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

logger = logging.getLogger(__name__)

Action = Callable[[], None]


class Waitable(Protocol):
    """What a selector can wait for."""

    def fileno(self) -> int:
        """Return the descriptor."""


class Timer:
    """A planned action; cancelled, it is skipped."""

    __slots__ = ("action", "at")

    def __init__(self, at: float, action: Action) -> None:
        self.at = at
        self.action: Action | None = action

    def cancel(self) -> None:
        """Do not do it any more; lets go of what the action holds."""
        self.action = None


class Supervisor:
    """A selector loop in a thread of its own; runs from construction to `close`."""

    def __init__(self, name: str) -> None:
        self._selector = selectors.DefaultSelector()
        self._posted: deque[Action] = deque()
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._waker, self._wakee = socket.socketpair()
        self._waker.setblocking(False)
        self._wakee.setblocking(False)
        self._selector.register(self._wakee, selectors.EVENT_READ, self._woken)
        self._running = True
        self._thread = threading.Thread(target=self._loop, name=f"rustic-supervisor-{name}")
        self._thread.daemon = True
        self._thread.start()

    def post(self, action: Action) -> None:
        """Have `action` done on the supervisor's thread. Never blocks; from any thread."""
        self._posted.append(action)
        with contextlib.suppress(BlockingIOError, OSError):  # full: it wakes anyway; closed: over
            self._waker.send(b"x")

    def watch(self, source: Waitable, action: Action) -> None:
        """Do `action` whenever `source` is readable. On the supervisor's thread only."""
        self._selector.register(source, selectors.EVENT_READ, action)

    def unwatch(self, source: Waitable) -> None:
        """Stop watching; not an error where it is not watched. On the supervisor's thread only."""
        with contextlib.suppress(KeyError):
            self._selector.unregister(source)

    def after(self, delay: float, action: Action) -> Timer:
        """Do `action` in `delay` seconds. On the supervisor's thread only."""
        timer = Timer(time.monotonic() + delay, action)
        heapq.heappush(self._timers, (timer.at, next(self._order), timer))
        return timer

    def close(self) -> None:
        """End the thread and give the descriptors back."""

        def end() -> None:
            self._running = False

        self.post(end)
        self._thread.join()
        self._selector.close()
        self._waker.close()
        self._wakee.close()

    def _woken(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._wakee.recv(4096):
                pass

    def _loop(self) -> None:
        while self._running:
            for key, _ in self._selector.select(self._until_next_timer()):
                self._do(key.data)
            while self._posted:
                self._do(self._posted.popleft())
            while self._timers and self._timers[0][0] <= time.monotonic():
                _, _, timer = heapq.heappop(self._timers)
                if timer.action is not None:
                    self._do(timer.action)

    def _until_next_timer(self) -> float | None:
        while self._timers and self._timers[0][2].action is None:
            heapq.heappop(self._timers)
        if not self._timers:
            return None
        return max(0.0, self._timers[0][0] - time.monotonic())

    def _do(self, action: Action) -> None:
        try:
            action()
        except Exception:
            logger.exception("an action of the supervisor failed")
