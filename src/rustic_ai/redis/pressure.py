"""Bounds: history is trimmed, and who publishes faster than others read has to wait."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterable

from rustic_ai.core.errors import BackendClosedError, BackPressureError
from rustic_ai.redis.scripts import TRIM
from rustic_ai.redis.store import Store

WAIT_FOR_ROOM = 25.0
"""Seconds after which a publisher gets an error."""
STEP_WAITS = 1.0
"""Seconds that a handler's step waits. It goes on then: its acknowledgements may be the cure."""
_CHECK_EVERY = 256
_FIRST_PAUSE, _LONGEST_PAUSE = 0.01, 0.25


class Pressure:
    """Looks at a topic whenever some hundred messages were stored there by this client.

    Args:
        store: the server.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        settings = store.settings
        every = min(_CHECK_EVERY, settings.max_messages // 4)
        if settings.max_pending:
            every = min(every, settings.max_pending // 4)
        self._every = max(1, every)
        self._stored: Counter[str] = Counter()
        self._full: dict[str, tuple[int, str]] = {}
        self._lock = threading.Lock()

    def note(self, topics: Iterable[str]) -> None:
        """Count what was stored: one topic for each message. Looks at those whose turn it is."""
        due = []
        with self._lock:
            for topic in topics:
                if topic not in self._stored:  # the first one: its stream is to have a lifetime
                    self._stored[topic] = self._every - 1
                self._stored[topic] += 1
                if self._stored[topic] == self._every:
                    due.append(topic)
            for topic in due:
                self._stored[topic] = 0
        for topic in due:
            self._look(topic)

    def _look(self, topic: str) -> bool:
        """Trim a topic; returns whether it is full."""
        settings = self._store.settings
        bounds = [settings.max_messages, max(1, round(settings.max_age * 1000))]
        behind, group = self._store.run(TRIM, [self._store.keys.stream(topic)], bounds)
        full = bool(settings.max_pending) and behind > settings.max_pending
        with self._lock:
            if full:
                self._full[topic] = behind, group.decode()
            else:
                self._full.pop(topic, None)
        return full

    def await_room(self, topics: Iterable[str]) -> None:
        """Wait while one of the topics is full.

        Raises:
            BackPressureError: it stayed full; says whose messages they are.
        """
        full = self._wait(topics, WAIT_FOR_ROOM)
        if full:
            behind, group = self._full.get(full[0], (0, ""))
            raise BackPressureError(
                reason=f"subscriber {group.rpartition('@')[0]!r} of topic {full[0]!r} has "
                f"{behind:,} messages to acknowledge "
                f"(max_pending is {self._store.settings.max_pending:,})",
                hint="publish less, remove the slow subscriber, or raise "
                "backend_config['max_pending']",
            )

    def slow_down(self, topics: Iterable[str]) -> None:
        """Wait a while where one of the topics is full, but for this client's own slowness."""
        self._wait((topic for topic in topics if not self._is_ours(topic)), STEP_WAITS)

    def _is_ours(self, topic: str) -> bool:
        """Say whether it is a group of this client that is behind."""
        _, group = self._full.get(topic, (0, ""))
        return group.rpartition("@")[2].startswith(self._store.token)

    def _wait(self, topics: Iterable[str], seconds: float) -> list[str]:
        """Wait until none of the topics is full; returns those that still are."""
        if not self._full:
            return []
        full = [topic for topic in dict.fromkeys(topics) if topic in self._full]
        ends = time.monotonic() + seconds
        pause = _FIRST_PAUSE
        while full := [topic for topic in full if self._look(topic)]:
            left = min(ends, self._store.leaves_at) - time.monotonic()
            if left <= 0:
                break
            if self._store.closed.wait(min(pause, left)):
                raise BackendClosedError
            pause = min(_LONGEST_PAUSE, pause * 1.5)
        return full
