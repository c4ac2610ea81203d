"""The one thread on which everything about an engine's processes happens.

It waits on sockets, process sentinels and timers, never polls, and nothing that runs on it blocks.
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
from concurrent.futures import Future
from typing import Protocol

from rustic_ai.core.forking import guard_forks

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


class Reactor:
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
        self._thread = threading.Thread(target=self._loop, name=f"rustic-reactor-{name}")
        self._thread.daemon = True
        guard_forks(self)
        self._thread.start()

    @property
    def is_current(self) -> bool:
        """Whether the caller runs on the reactor's thread."""
        return threading.current_thread() is self._thread

    def post(self, action: Action) -> None:
        """Have `action` done on the reactor's thread. Never blocks; from any thread."""
        self._posted.append(action)
        with contextlib.suppress(BlockingIOError, OSError):  # full: it wakes anyway; closed: over
            self._waker.send(b"x")

    def call(self, action: Action) -> None:
        """Have `action` done on the reactor's thread, and wait for it; raises what it raises."""
        if self.is_current or not self._running:
            action()
            return
        done: Future[None] = Future()

        def run() -> None:
            try:
                action()
            except BaseException as e:  # noqa: BLE001 - for the caller, whatever it is
                done.set_exception(e)
            else:
                done.set_result(None)

        self.post(run)
        done.result()

    def watch(self, source: Waitable, action: Action) -> None:
        """Do `action` whenever `source` is readable. On the reactor's thread only."""
        self._selector.register(source, selectors.EVENT_READ, action)

    def watch_writable(self, source: Waitable, *, wanted: bool) -> None:
        """Do the action of a watched source also whenever it is writable, or no longer."""
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if wanted else 0)
        self._selector.modify(source, events, self._selector.get_key(source).data)

    def unwatch(self, source: Waitable) -> None:
        """Stop watching; not an error where it is not watched. On the reactor's thread only."""
        with contextlib.suppress(KeyError):
            self._selector.unregister(source)

    def after(self, delay: float, action: Action) -> Timer:
        """Do `action` in `delay` seconds. On the reactor's thread only."""
        timer = Timer(time.monotonic() + delay, action)
        heapq.heappush(self._timers, (timer.at, next(self._order), timer))
        return timer

    def close(self) -> None:
        """End the thread and give the descriptors back."""

        def end() -> None:
            self._running = False

        self.post(end)
        self._thread.join()
        while self._posted:  # by those who came too late
            self._do(self._posted.popleft())
        self._selector.close()
        self._waker.close()
        self._wakee.close()

    def close_in_fork(self) -> None:
        """Close the descriptors of a forked copy, in which the thread does not exist."""
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
                now = self._selector.get_map().get(key.fd)
                if now is not None and now.data is key.data:  # not unwatched by one before it
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
            logger.exception("an action of the reactor failed")
