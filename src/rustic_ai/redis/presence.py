"""Who listens: subscriptions are listed while a connection of their client stands.

A client gives its name to its connections, so nobody has to say all the time that it still lives,
and who is killed is gone from the list at once.
"""

from __future__ import annotations

import json
import time

from rustic_ai.core.messaging.backend.remote import Place
from rustic_ai.redis.link import Link
from rustic_ai.redis.scripts import FORGET
from rustic_ai.redis.store import Store


class Presence:
    """Notes this client's subscriptions, and lists everybody's.

    Args:
        store: the server.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def add(self, place: Place, link: Link) -> None:
        """Note a subscription."""
        link.call("HSET", self._store.keys.present, self._field(place), time.time_ns())

    def remove(self, place: Place, link: Link) -> None:
        """Note that it has ended."""
        link.call("HDEL", self._store.keys.present, self._field(place))

    def _field(self, place: Place) -> str:
        return json.dumps([self._store.token, place.topic, place.subscriber])

    def listed(self) -> list[tuple[str, str]]:
        """Return topic and subscriber of each subscription, over all clients that are connected."""
        store = self._store
        noted = store.call("HGETALL", store.keys.present)
        connected = set(_names(store.call("CLIENT", "LIST", "TYPE", "NORMAL")))
        found = []
        for field, value in zip(noted[::2], noted[1::2], strict=True):
            token, topic, subscriber = json.loads(field)
            if f"rustic-{token}" in connected:
                found.append((topic, subscriber))
            else:  # killed; but if it has just come back, it has noted another time
                store.run(FORGET, [store.keys.present], [field, value])
        return found


def _names(clients: bytes) -> list[str]:
    words = (word for line in clients.decode().splitlines() for word in line.split(" "))
    return [word.removeprefix("name=") for word in words if word.startswith("name=")]
