"""Subscriptions of this client: taken, left, given up."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from rustic_ai.core.messaging.backend.remote import Delivery, Output, Place
from rustic_ai.redis.held import Held
from rustic_ai.redis.link import Link
from rustic_ai.redis.presence import Presence
from rustic_ai.redis.readers import GroupReader, Hooks, PlainReader, Reader
from rustic_ai.redis.scripts import BURY, DECLARE, RELEASE, TAKE
from rustic_ai.redis.store import Store
from rustic_ai.redis.units import Settled, taken

Bury = Callable[[Place, bytes, int, str], Output | None]
"""Returns what goes to the dead letters for a place, a record, its attempts and the reason."""


class Places:
    """Connects subscriptions to readers: one for each durable subscriber, one for all others.

    Args:
        store: the server.
        hooks: the backend.
        bury: makes dead letters.
    """

    def __init__(self, store: Store, hooks: Hooks, bury: Bury) -> None:
        self._store = store
        self._hooks = hooks
        self._bury = bury
        self.presence = Presence(store)
        self._held: dict[Place, Held] = {}
        self._readers: dict[str | None, Reader] = {}
        self._leaving: list[Reader] = []
        self._lock = threading.Lock()

    def open(self, place: Place) -> None:
        """Take a place, and begin to read."""
        held = Held(place, self._store.keys.stream(place.topic))
        if place.durable:
            self._take(held)
        else:
            held.begin(b"0-0" if place.from_start else self._end_of(held.stream))
        self._store.using(lambda link: self.presence.add(place, link))
        with self._lock:
            self._held[place] = held
            name = place.subscriber if place.durable else None
            reader = self._readers.get(name)
            if reader is None or not reader.add(held):
                reader = self._readers[name] = self._new_reader(place)
                reader.add(held)

    def _new_reader(self, place: Place) -> Reader:
        if place.durable:
            return GroupReader(self._store, self.presence, self._hooks, place.subscriber)
        return PlainReader(self._store, self.presence, self._hooks, "others")

    def _end_of(self, stream: str) -> bytes:
        def look(link: Link) -> bytes:
            newest = link.call("XREVRANGE", stream, "+", "-", "COUNT", 1)
            return bytes(newest[0][0]) if newest else b"0-0"

        return self._store.using(look)

    def _take(self, held: Held) -> None:
        """Take a durable place; what killed its holders too often is buried first."""
        keys, place = self._store.keys, held.place
        names = [keys.holders(place.topic), held.stream, keys.held(place.subscriber)]
        begin = "0" if place.from_start else "$"
        group = f"{place.subscriber}@{self._store.token}"  # its reader makes it one of its own
        words = [place.subscriber, self._store.token, begin, place.topic, group, "0"]
        _, position, crash, crashes, seen = self._store.run(TAKE, names, words)
        if place.max_attempts and int(crashes) >= place.max_attempts:
            after = self._store.call("XRANGE", held.stream, b"(" + position, "+", "COUNT", 1)
            if after and after[0][0] == crash:
                self._give_up(place, crash, after[0][1][1], int(crashes))
                position, crash = crash, b""
        held.begin(position, group)
        held.expect(crash, int(crashes), seen)

    def _give_up(self, place: Place, entry: bytes, record: bytes, crashes: int) -> None:
        keys = self._store.keys
        reason = f"its process was lost {crashes} times while it was being handled"
        dead = self._bury(place, record, crashes, reason)
        names = [keys.holders(place.topic), keys.stream(place.topic)]
        words: list[str | bytes] = [place.subscriber, self._store.token, entry]
        if dead is not None:
            names += [keys.stream(dead.topic), keys.topics(dead.namespace)]
            words += [dead.topic, dead.record]
        if self._store.run(BURY, names, words) == b"taken":
            raise taken(self._store, place.subscriber)

    def close(self, place: Place, *, forget: bool) -> None:
        """Leave a place; `forget`: for good."""
        with self._lock:
            held = self._held.pop(place, None)
            if held is None:
                return
            name = place.subscriber if place.durable else None
            reader = self._readers[name]
            if reader.remove(held):
                del self._readers[name]
                self._leaving = [*(one for one in self._leaving if one.runs), reader]
        self._store.using(lambda link: self._leave(link, place, forget=forget))

    def _leave(self, link: Link, place: Place, *, forget: bool) -> None:
        self.presence.remove(place, link)
        if place.durable:
            words = [self._store.token, place.topic, *self._ending(forget=forget)]
            RELEASE.run(
                link, self._names(place.topic, place.subscriber), [place.subscriber, *words]
            )

    def _names(self, topic: str, subscriber: str) -> list[str]:
        keys = self._store.keys
        return [keys.holders(topic), keys.stream(topic), keys.held(subscriber)]

    def _ending(self, *, forget: bool) -> list[str]:
        return [str(max(1, round(self._store.settings.max_age * 1000))), "1" if forget else "0"]

    def declare(self, namespace: str, topic: str, subscriber: str, *, from_start: bool) -> None:
        """Make a durable place that nobody holds."""
        names = [*self._names(topic, subscriber), self._store.keys.topics(namespace)]
        self._store.run(DECLARE, names, [subscriber, "0" if from_start else "$", topic])

    def disown(self, namespace: str, subscriber: str) -> None:
        """Give up all durable places of a subscriber, whoever holds them."""
        topics = self._store.call("SMEMBERS", self._store.keys.held(subscriber))
        of_namespace = self._store.call("SMEMBERS", self._store.keys.topics(namespace))
        for name in topics:
            if name in of_namespace or name.decode().startswith(f"{namespace}:"):
                topic = name.decode()
                words = [subscriber, "", topic, *self._ending(forget=True)]
                self._store.run(RELEASE, self._names(topic, subscriber), words)

    # What was handled

    def settled(self, deliveries: Sequence[Delivery]) -> list[Settled]:
        """Return what is to be acknowledged of deliveries, by place."""
        entries: dict[Place, list[bytes]] = {}
        for delivery in deliveries:
            if delivery.place.durable:
                entries.setdefault(delivery.place, []).append(delivery.token)
        return [(place.topic, place.subscriber, ids) for place, ids in entries.items()]

    def note_settled(self, deliveries: Sequence[Delivery]) -> None:
        """Note that they were acknowledged."""
        entries: dict[Place, list[bytes]] = {}
        for delivery in deliveries:
            entries.setdefault(delivery.place, []).append(delivery.token)
        for place, ids in entries.items():
            held = self._held.get(place)
            if held is not None and (again := held.settled(ids)):
                self._store.call("XACK", held.stream, held.group, *again)

    # The end

    def end(self) -> list[Reader]:
        """Have the readers end; returns them."""
        with self._lock:
            readers = [*self._readers.values(), *self._leaving]
        for reader in readers:
            reader.end()
        return readers

    def leave(self, link: Link) -> None:
        """Leave all places cleanly: who takes them next knows that nobody has crashed."""
        with self._lock:
            places, self._held = list(self._held), {}
        for place in places:
            self._leave(link, place, forget=False)
