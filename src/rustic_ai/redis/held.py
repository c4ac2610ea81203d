"""What this client knows of a subscription that it holds."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from typing import Any

from rustic_ai.core.messaging.backend.remote import Delivery, Place

Position = tuple[int, int]
START: Position = (0, 0)


def position_of(entry: bytes) -> Position:
    """Return the id of an entry as numbers, which compare."""
    ms, _, sequence = entry.partition(b"-")
    return (int(ms), int(sequence)) if entry != b"0-0" else START


class Held:
    """A subscription, how far it was read, and what of it is in hand here. Any thread.

    Args:
        place: the subscription.
        stream: the key of its stream.
    """

    def __init__(self, place: Place, stream: str) -> None:
        self.place = place
        self.stream = stream
        self.group = ""
        """The consumer group by which it is read."""
        self.last = b"0-0"
        """The last entry that was read."""
        self._read_before: Position | None = None
        self._crash, self._crashes, self._seen = b"", 0, START
        self._in_hand: set[bytes] = set()
        self._doubtful: set[bytes] = set()
        self._lock = threading.Lock()

    def begin(self, position: bytes, group: str = "") -> None:
        """Begin to read.

        Args:
            position: behind which entry.
            group: by which group.
        """
        with self._lock:
            self.last, self.group = position, group
            self._read_before = None
            self._in_hand.clear()
            self._doubtful.clear()

    def expect(self, crash: bytes, crashes: int, seen: bytes) -> None:
        """Count attempts.

        Args:
            crash: the entry in hand when holders of the place crashed.
            crashes: how often they did.
            seen: the last entry that such a one had read.
        """
        self._crash, self._crashes, self._seen = crash, crashes, position_of(seen)

    def resume(self, group: str, newest: bytes) -> None:
        """Go on by another group, which begins with what was not acknowledged.

        Args:
            group: its name.
            newest: of the stream. It may have lost some at its end, and will have new ones there.
        """
        with self._lock:
            self.group = group
            self.last = min(self.last, newest, key=position_of)
            self._read_before = position_of(self.last)

    def received(self, entries: Sequence[Any]) -> tuple[list[Delivery], list[bytes]]:
        """Return what is to be delivered of a reply, and what is to be acknowledged once more."""
        deliveries: list[Delivery] = []
        again: list[bytes] = []
        with self._lock:
            for entry, fields in entries:
                if self._read_before is not None:
                    if position_of(entry) <= self._read_before:
                        # Given to us before we came back. What is in hand is acknowledged in time,
                        # perhaps before the new group knew of it: `settled` does it once more.
                        if entry in self._in_hand:
                            self._doubtful.add(entry)
                        else:
                            again.append(entry)
                        continue
                    self._read_before = None
                self.last = entry
                if self.place.durable:
                    self._in_hand.add(entry)
                deliveries.append(Delivery(self.place, fields[1], self._attempt(entry), entry))
        return deliveries, again

    def _attempt(self, entry: bytes) -> int:
        if self._seen is START:
            return 1
        if entry == self._crash:
            return self._crashes + 1
        return 2 if position_of(entry) <= self._seen else 1

    def settled(self, entries: Iterable[bytes]) -> list[bytes]:
        """Note what was acknowledged; returns what is to be acknowledged once more."""
        with self._lock:
            self._in_hand.difference_update(entries)
            if not self._doubtful:
                return []
            again = [entry for entry in entries if entry in self._doubtful]
            self._doubtful.difference_update(again)
            return again
