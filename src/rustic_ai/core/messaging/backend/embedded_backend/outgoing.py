"""Units on their way to the server: sent within the window, and kept until they are stored."""

from __future__ import annotations

import contextlib
import logging
import time
from typing import Final

from rustic_ai.core.errors import BackendClosedError, BackendUnavailableError, BackPressureError
from rustic_ai.core.messaging.backend.embedded_backend.window import SendWindow
from rustic_ai.core.messaging.backend.embedded_backend.wire import ANSWER_DEADLINE, Wire

logger: Final = logging.getLogger(__name__)

DRAIN_DEADLINE: Final = 5.0
"""Seconds that a client waits at its end for the word that its messages are stored."""


class Outgoing:
    """Sends units, and waits for the server's word where somebody wants it.

    Args:
        wire: the connection.
        window: keeps them.
    """

    def __init__(self, wire: Wire, window: SendWindow) -> None:
        self._wire = wire
        self._window = window

    def send(self, frame: bytes) -> int:
        """Send a unit, once there is room for it; returns its number.

        Raises:
            BackPressureError: there was none for too long, or the server refused one before it.
            BackendClosedError: the client was closed.
            BackendUnavailableError: the server is gone.
        """
        window = self._window
        if window.is_full():
            self._await_room()
        unit = self._wire.send_unit(frame, window)
        if window.refusals:
            self._raise_refusal()
        return unit

    def _await_room(self) -> None:
        deadline = time.monotonic() + ANSWER_DEADLINE
        try:
            self._wire.wait(lambda: not self._window.is_full(), deadline)
        except BackendUnavailableError as e:
            if time.monotonic() >= deadline:
                raise BackPressureError(
                    reason=f"the server has taken no message for {ANSWER_DEADLINE:g} s"
                ) from e
            raise

    def _raise_refusal(self) -> None:
        with self._wire.state:
            refusals = self._window.refusals
            if not refusals:
                return
            reason = refusals.pop(min(refusals))
        raise BackPressureError(reason=reason)

    def wait_stored(self, unit: int) -> None:
        """Wait until the server has stored a unit.

        Raises:
            BackPressureError: it will not.
            BackendUnavailableError: the server is gone.
        """
        window = self._window
        self._wire.wait(lambda: window.accepted >= unit)
        if unit in window.refusals:
            raise BackPressureError(reason=window.refusals.pop(unit))

    def drain(self) -> None:
        """Wait for the word that all is stored; what may not be is logged."""
        window, deadline = self._window, time.monotonic() + DRAIN_DEADLINE
        if window.accepted < window.sent:
            with contextlib.suppress(BackendUnavailableError, BackendClosedError):
                self._wire.wait(lambda: window.accepted >= window.sent, deadline)
        if window.accepted < window.sent:
            left = window.sent - window.accepted
            logger.warning("%d messages may not have reached the message server", left)
