"""The thread that hands messages to a foreign store, many at a time."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from rustic_ai.core.errors import BackendClosedError, BackPressureError
from rustic_ai.core.messaging.backend.remote.record import Output

logger = logging.getLogger(__name__)

WAIT_FOR_ROOM = 30.0
"""Seconds that a publisher waits for the store to take what others sent before."""
_MOST, _MOST_BYTES = 4096, 8 << 20
_BATCH, _BATCH_BYTES = 512, 1 << 20


class Sender:
    """Sends in the order of the calls. While the store is busy with some, the next ones gather.

    Args:
        name: of the thread, which begins with the first message.
        append: stores messages in their order; returns when they are.
        lost: is told of an error that nobody waits for.
    """

    def __init__(
        self,
        name: str,
        append: Callable[[Sequence[Output]], None],
        lost: Callable[[Exception], None],
    ) -> None:
        self._name = name
        self._append = append
        self._lost = lost
        self._waiting: deque[Output] = deque()
        self._bytes = 0
        self._changed = threading.Condition()
        self._put = self._done = 0
        self._awaited: set[int] = set()
        self._errors: dict[int, Exception] = {}
        self._thread: threading.Thread | None = None
        self._closing = False

    def put(self, output: Output, *, awaited: bool = False) -> int:
        """Add a message; waits while too many wait already.

        Args:
            output: the message.
            awaited: whether `wait` will be called with what this returns.

        Raises:
            BackPressureError: there was no room for `WAIT_FOR_ROOM` seconds.
            BackendClosedError: it was closed.
        """
        with self._changed:
            if not self._has_room():
                self._changed.wait_for(lambda: self._has_room() or self._closing, WAIT_FOR_ROOM)
            if self._closing:
                raise BackendClosedError
            if not self._has_room():
                raise BackPressureError(
                    reason=f"the store has taken no message for {WAIT_FOR_ROOM:g} s"
                )
            self._waiting.append(output)
            self._bytes += len(output.record)
            self._put += 1
            if awaited:
                self._awaited.add(self._put)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
            self._changed.notify_all()
            return self._put

    def _has_room(self) -> bool:
        return len(self._waiting) < _MOST and self._bytes < _MOST_BYTES

    def wait(self, number: int) -> None:
        """Wait until a message is stored.

        Raises:
            Exception: whatever `append` raised for it.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._done >= number)
            self._awaited.discard(number)
            error = self._errors.pop(number, None)
        if error is not None:
            raise error

    def close(self, deadline: float) -> None:
        """Send what waits, for so many seconds at most, and end the thread."""
        ends = time.monotonic() + deadline
        with self._changed:
            self._changed.wait_for(lambda: self._done == self._put, deadline)
            left = self._put - self._done
            self._closing = True
            self._waiting.clear()
            self._changed.notify_all()
        if left:
            logger.warning("%d messages may not have reached the message store", left)
        if self._thread is not None:
            self._thread.join(max(0.1, ends - time.monotonic()))

    def _run(self) -> None:
        while (batch := self._next_batch()) is not None:
            error: Exception | None = None
            try:
                self._append(batch)
            except Exception as e:  # noqa: BLE001 - raised for who waits, and told by `lost`
                error = e
            self._note(len(batch), error)

    def _next_batch(self) -> list[Output] | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closing)
            if self._closing:
                self._done = self._put
                self._changed.notify_all()
                return None
            batch: list[Output] = []
            size = 0
            while self._waiting and len(batch) < _BATCH and size < _BATCH_BYTES:
                batch.append(self._waiting.popleft())
                size += len(batch[-1].record)
            self._bytes -= size
            return batch

    def _note(self, count: int, error: Exception | None) -> None:
        with self._changed:
            numbers = range(self._done + 1, self._done + count + 1)
            if error is not None:
                awaited = self._awaited.intersection(numbers)
                self._errors.update(dict.fromkeys(awaited, error))
                if len(awaited) < count:
                    self._lost(error)
            self._done += count
            self._changed.notify_all()
