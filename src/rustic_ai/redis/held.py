"""What this client knows of a subscription that it holds."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any

from rustic_ai.core.messaging.backend.remote import Delivery, Place

Position = tuple[int, int]
START: Position = (0, 0)
_REMEMBERED = 8192
"""Entries that may be lost with the end of a stream and come again under other ids: more than
publishers have under way before a replica has confirmed it."""


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
        self._doubtful: dict[bytes, bytes] = {}
        """What is in hand -> the entry that is to be acknowledged once that is settled."""
        self._recent: OrderedDict[bytes, int] = OrderedDict()
        """The last entries that were read, with a hash of what stands in them."""
        self._forgotten = START
        """Entries up to this one were read, or are not for us."""
        self._lost: dict[int, bytes] = {}
        """Of those that the store has lost: the hash -> the entry."""
        self._lock = threading.Lock()

    def begin(self, position: bytes, group: str = "") -> None:
        """Begin to read.

        Args:
            position: behind which entry.
            group: by which group.
        """
        with self._lock:
            self.last, self.group = position, group
            self._forgotten = position_of(position)
            self._read_before = None
            self._in_hand.clear()
            self._doubtful.clear()
            self._recent.clear()
            self._lost.clear()

    def expect(self, crash: bytes, crashes: int, seen: bytes) -> None:
        """Count attempts.

        Args:
            crash: the entry in hand when holders of the place crashed.
            crashes: how often they did.
            seen: the last entry that such a one had read.
        """
        self._crash, self._crashes, self._seen = crash, crashes, position_of(seen)

    def has_read(self, entry: bytes) -> bool:
        """Say whether an entry was given to us, or is older than all that we remember."""
        with self._lock:
            return entry in self._recent or position_of(entry) <= self._forgotten

    def resume(self, group: str, last: bytes) -> None:
        """Go on by another group, which begins with what was not acknowledged.

        Args:
            group: its name.
            last: of the entries that were read, the last one that is still there. What came behind
                it is lost, and comes again under other ids where its publisher had no word that it
                is stored.
        """
        with self._lock:
            self.group, self.last = group, last
            self._read_before = position_of(last)
            while self._recent and position_of(next(reversed(self._recent))) > self._read_before:
                entry, content = self._recent.popitem()
                self._lost[content] = entry

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
                        self._settle_with(entry, entry, again)
                        continue
                    self._read_before = None
                self.last = entry
                if self.place.durable:
                    content = hash(fields[1])
                    self._recent[entry] = content
                    if len(self._recent) > _REMEMBERED:
                        self._forgotten = position_of(self._recent.popitem(last=False)[0])
                    known = self._lost.pop(content, None)
                    if known is not None:  # lost with its store, and stored again by its publisher
                        self._settle_with(known, entry, again)
                        continue
                    self._in_hand.add(entry)
                deliveries.append(Delivery(self.place, fields[1], self._attempt(entry), entry))
        return deliveries, again

    def _settle_with(self, known: bytes, entry: bytes, again: list[bytes]) -> None:
        """Have an entry acknowledged when one that was read before is settled, or was."""
        if known in self._in_hand:
            self._doubtful[known] = entry
        else:
            again.append(entry)

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
            again = [self._doubtful.pop(entry, b"") for entry in entries]
            return [entry for entry in again if entry]
