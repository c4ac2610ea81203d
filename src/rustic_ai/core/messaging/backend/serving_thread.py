"""The thread on which a backend delivers for a program that does not serve itself."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from rustic_ai.core.errors import BackendClosedError
from rustic_ai.core.messaging.core.stop_signal import StopSignal

logger = logging.getLogger(__name__)


class ServingThread:
    """Runs once it is started, until `end`; after that come `close` and nothing more."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stop = StopSignal()
        self._ended = False

    def start(self, name: str, serve: Callable[[StopSignal], None]) -> None:
        """Have `serve` run, if it does not already.

        Args:
            name: of the thread.
            serve: delivers until the signal is set.
        """
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, args=(serve,), name=name, daemon=True
                )
                self._thread.start()

    def _run(self, serve: Callable[[StopSignal], None]) -> None:
        try:
            serve(self._stop)
        except BackendClosedError:
            return
        except Exception:
            logger.exception("messages are no longer delivered")

    def end(self) -> bool:
        """Let the message in hand finish, unless it is its handler that calls.

        Returns:
            Whether this was the first call.
        """
        with self._lock:
            if self._ended:
                return False
            self._ended = True
        self._stop.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()
        return True

    def close(self) -> None:
        """Give the descriptor back."""
        self._stop.close()
