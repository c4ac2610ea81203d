"""The thread on which an engine's listeners are called."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

from rustic_ai.core.guild.execution.stats import AgentEvent


class EventThread:
    """Tells one event after another, so that no listener holds up the reactor.

    Args:
        name: shown in the name of the thread.
        tell: called with each event.
    """

    def __init__(self, name: str, tell: Callable[[AgentEvent], None]) -> None:
        self._events: queue.SimpleQueue[AgentEvent | None] = queue.SimpleQueue()
        self._tell = tell
        self._thread = threading.Thread(target=self._loop, name=f"rustic-events-{name}")
        self._thread.daemon = True
        self._thread.start()

    def put(self, event: AgentEvent) -> None:
        """Have an event told; from any thread, never blocks."""
        self._events.put(event)

    def close(self) -> None:
        """Tell what there is to tell, and end."""
        self._events.put(None)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _loop(self) -> None:
        while (event := self._events.get()) is not None:
            self._tell(event)
