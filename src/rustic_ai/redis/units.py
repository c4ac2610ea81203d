"""What is stored: outputs, and the word that messages were handled, as units that count."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from typing import Any

from rustic_ai.core.errors import BackendUnavailableError
from rustic_ai.core.messaging.backend.remote import Output
from rustic_ai.redis.link import Link, redis_errors
from rustic_ai.redis.scripts import UNIT
from rustic_ai.redis.store import Store

Settled = tuple[str, str, Sequence[bytes]]
"""Topic, subscriber, and the entries that were handled."""

_MEMORY = 3_600_000
"""Milliseconds for which the server remembers how far a client was; longer than any outage."""
_REPLICATE_WITHIN = 1000


class Lane:
    """One sequence of units. A unit that is sent again, after a lost connection, has no effect.

    Args:
        store: the server.
        name: of the sequence, among those of this client.
    """

    def __init__(self, store: Store, name: str) -> None:
        self._store = store
        self._counter = store.keys.unit(store.token, name)
        self._lock = threading.Lock()
        self._number = 0

    def send(self, settled: Iterable[Settled], outputs: Iterable[Output]) -> None:
        """Store a unit, as a whole and once.

        Raises:
            BackendUnavailableError: the server stayed away, or another process has taken one of
                the places: then nothing of the unit was stored.
        """
        store = self._store
        keys, acknowledgements = _acknowledgements(store, settled)
        topic_keys, records = _records(store, outputs)
        keys = [self._counter, *keys, *topic_keys]
        with self._lock:
            self._number += 1
            memory = max(_MEMORY, round(store.settings.reconnect_timeout * 2000))
            arguments = [self._number, memory, round(store.settings.max_age * 1000), store.token]
            arguments += acknowledgements
            arguments += records
            reply = store.using(lambda link: self._send(link, keys, arguments))
        if reply[0] == b"taken":
            raise taken(store, reply[1].decode())

    def _send(self, link: Link, keys: list[str], arguments: list[Any]) -> Any:
        reply = UNIT.run(link, keys, arguments)
        wanted = self._store.settings.replicas
        if wanted:
            have = link.call("WAIT", wanted, _REPLICATE_WITHIN)
            if have < wanted:
                raise redis_errors.ConnectionError(
                    f"only {have} of {wanted} replicas have stored a message"
                )
        return reply

    def forget(self, link: Link) -> None:
        """Have the server forget the sequence: nothing comes any more."""
        link.call("DEL", self._counter)


def taken(store: Store, subscriber: str) -> BackendUnavailableError:
    """Return the error of who has been replaced."""
    return BackendUnavailableError(
        address=store.settings.address,
        reason=f"another process has taken the place of its subscriber {subscriber!r}",
    )


def _acknowledgements(store: Store, settled: Iterable[Settled]) -> tuple[list[str], list[Any]]:
    keys: list[str] = []
    arguments: list[Any] = [0]
    for topic, subscriber, entries in settled:
        keys += (store.keys.holders(topic), store.keys.stream(topic))
        arguments += (subscriber, len(entries), *entries)
        arguments[0] += 1
    return keys, arguments


def _records(store: Store, outputs: Iterable[Output]) -> tuple[list[str], list[Any]]:
    numbers: dict[str, int] = {}
    keys: list[str] = []
    records: list[Any] = []
    for output in outputs:
        number = numbers.get(output.topic)
        if number is None:
            number = numbers[output.topic] = len(numbers) + 1
            keys += (store.keys.stream(output.topic), store.keys.topics(output.namespace))
        records += (number, output.record)
    return keys, [len(numbers), *numbers, *records]
