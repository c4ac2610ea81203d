"""A handler's outputs and the word that its message was handled, which leave together."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from rustic_ai.core.messaging.backend.embedded_backend.inbox import Parcel
from rustic_ai.core.messaging.backend.embedded_backend.protocol import (
    HEADER_SIZE,
    LARGE,
    unpack_message,
)
from rustic_ai.core.messaging.core.stop_signal import StopSignal

logger: Final = logging.getLogger(__name__)

_FLUSH_BYTES: Final = 32 << 10
_FLUSH_AFTER: Final = 0.001
"""Seconds that a finished step may wait for company."""
_FLUSH_MESSAGES: Final = 1024
"""Messages without output after which the server is told."""
_NOBODY: Final = -1
_now: Final = time.monotonic


class Step:
    """Runs handlers, and keeps what they send until they have returned.

    Steps of several messages are sent as one, cut only between two handlers: a crash loses whole
    steps, whose messages come again.

    Args:
        send: sends acknowledgements and frames, of so many bytes, as one unit.
    """

    def __init__(self, send: Callable[[bytes, list[bytes], int], None]) -> None:
        self._send = send
        self.thread = _NOBODY
        """The one that handlers run on."""
        self.frames: list[bytes] = []
        """What handlers have sent and what waits to leave; the running handler's are added."""
        self.size = 0
        """Bytes of these."""
        self._since = 0.0
        self.running = False
        """Whether a handler runs."""

    def claim(self) -> None:
        """Let handlers run on the calling thread from now on."""
        self.thread = threading.get_ident()

    def release(self) -> None:
        """Let them run there no more."""
        self.thread = _NOBODY

    def run(
        self,
        parcel: Parcel,
        stop: StopSignal,
        acknowledgements: Callable[[], bytes],
        overtaken: Callable[[Parcel], bool],
    ) -> None:
        """Have the messages of a parcel handled, until `stop` is set or another is more urgent.

        Args:
            parcel: the messages.
            stop: ends it between two of them.
            acknowledgements: returns the word that messages were handled, to be sent.
            overtaken: asked before each message of a ranked subscription; it keeps the rest.
        """
        subscription, run = parcel.subscription, parcel.run
        position, attempt, epoch = parcel.base, parcel.attempt, parcel.epoch
        offset, end, whole = parcel.first, len(run), memoryview(run)
        body: bytes | memoryview
        careful = attempt > 1  # the culprit of a crash must be told from its neighbours
        known = subscription.handled if epoch == subscription.epoch else 0
        handled, ranked = 0, subscription.rank
        while offset < end:
            receiver = subscription.receiver
            if receiver is None or stop.stopped:
                return
            if ranked and overtaken(parcel.rest(position, offset)):
                return
            length, flags, ttl_ms, message_id = unpack_message(run, offset)
            start, offset = offset + HEADER_SIZE, offset + length
            position += 1
            if position <= known:
                continue  # it came twice, around a lost connection
            mark = len(self.frames)
            self.running = True
            try:
                body = whole[start:offset] if flags & LARGE else run[start:offset]
                receiver(body, flags | parcel.handled, message_id, ttl_ms, attempt)
            except Exception:
                logger.exception("a message handler failed")
            except BaseException:
                del self.frames[mark:]  # it did not finish: the message comes again
                self.size = sum(map(len, self.frames))
                raise
            finally:
                self.running = False
            frames = self.frames
            if epoch == subscription.epoch:  # a handler may have waited for another server
                subscription.handled = position
                if not frames:
                    subscription.settled = position
            handled += 1
            if careful or (
                self.is_due() if frames and offset < end else handled >= _FLUSH_MESSAGES
            ):
                self.flush(acknowledgements())
                handled = 0

    def is_due(self) -> bool:
        """Say whether what has gathered should not wait for more; to be asked where there is some.

        The end of a parcel is not asked for: whoever finds no other one there sends what there is.
        """
        if not self.frames:
            return False
        now = _now()
        if not self._since:
            self._since = now
        return self.size >= _FLUSH_BYTES or now - self._since >= _FLUSH_AFTER

    def flush(self, acknowledgements: bytes) -> None:
        """Send what has gathered."""
        frames, size = self.frames, self.size
        if frames or acknowledgements:
            self.frames, self.size, self._since = [], 0, 0.0
            self._send(acknowledgements, frames, size)
