"""A handler's outputs and the word that its message was handled, which leave together."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from rustic_ai.core.messaging.backend.embedded_backend.inbox import Parcel
from rustic_ai.core.messaging.backend.embedded_backend.protocol import HEADER, HEADER_SIZE
from rustic_ai.core.messaging.core.stop_signal import StopSignal

logger = logging.getLogger(__name__)

_FLUSH_BYTES = 32 << 10
_FLUSH_AFTER = 0.001
"""Seconds that a finished step may wait for company."""
_FLUSH_MESSAGES = 1024
"""Messages without output after which the server is told."""
_NOBODY = -1
_unpack = HEADER.unpack_from


class Step:
    """Runs handlers, and keeps what they send until they have returned.

    Steps of several messages are sent as one, cut only between two handlers: a crash loses whole
    steps, whose messages come again.

    Args:
        send: sends acknowledgements and frames as one unit.
    """

    def __init__(self, send: Callable[[bytes, list[bytes]], None]) -> None:
        self._send = send
        self.thread = _NOBODY
        """The one that handlers run on."""
        self._frames: list[bytes] = []
        self._size = 0
        self._since = 0.0
        self.running = False
        """Whether a handler runs."""

    def claim(self) -> None:
        """Let handlers run on the calling thread from now on."""
        self.thread = threading.get_ident()

    def release(self) -> None:
        """Let them run there no more."""
        self.thread = _NOBODY

    @property
    def has_frames(self) -> bool:
        """Whether something waits to be sent."""
        return bool(self._frames)

    def add(self, frame: bytes) -> None:
        """Keep what the running handler sends."""
        self._frames.append(frame)
        self._size += len(frame)

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
        subscription, position = parcel.subscription, parcel.base
        run, offset, end = parcel.run, parcel.first, len(parcel.run)
        whole, attempt, epoch = memoryview(run), parcel.attempt, parcel.epoch
        of_delivery = parcel.handled
        careful = attempt > 1  # the culprit of a crash must be told from its neighbours
        known = subscription.handled if epoch == subscription.epoch else 0
        handled, stopped, ranked = 0, stop.is_set, subscription.rank
        while offset < end:
            receiver = subscription.receiver
            if receiver is None or stopped():
                return
            if ranked and overtaken(parcel._replace(base=position, first=offset)):
                return
            length, _, flags, _, _, ttl_ms, _ = _unpack(run, offset)
            start, offset = offset + HEADER_SIZE, offset + length
            position += 1
            if position <= known:
                continue  # it came twice, around a lost connection
            mark = len(self._frames)
            self.running = True
            try:
                receiver(whole[start:offset], flags | of_delivery, ttl_ms, attempt)
            except Exception:
                logger.exception("a message handler failed")
            except BaseException:
                del self._frames[mark:]  # it did not finish: the message comes again
                raise
            finally:
                self.running = False
            frames = self._frames
            if epoch == subscription.epoch:  # a handler may have waited for another server
                subscription.handled = position
                if not frames:
                    subscription.settled = position
            handled += 1
            if careful or (self._is_due() if frames else handled >= _FLUSH_MESSAGES):
                self.flush(acknowledgements())
                handled = 0

    def _is_due(self) -> bool:
        """Say whether what has gathered should not wait for more."""
        now = time.monotonic()
        if not self._since:
            self._since = now
        return self._size >= _FLUSH_BYTES or now - self._since >= _FLUSH_AFTER

    def flush(self, acknowledgements: bytes) -> None:
        """Send what has gathered."""
        frames = self._frames
        if frames or acknowledgements:
            self._frames, self._size, self._since = [], 0, 0.0
            self._send(acknowledgements, frames)
