"""The messaging contract over a Redis server."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any

from rustic_ai.core.errors import BackendUnavailableError, GuildError, MessageTooLargeError
from rustic_ai.core.messaging.backend.remote import (
    Delivery,
    Output,
    Place,
    RemoteMessagingBackend,
)
from rustic_ai.core.messaging.core.capabilities import Capabilities
from rustic_ai.core.messaging.core.message import Message
from rustic_ai.redis import history
from rustic_ai.redis.link import FAILURES, Link
from rustic_ai.redis.places import Places
from rustic_ai.redis.pressure import Pressure
from rustic_ai.redis.readers import Hooks
from rustic_ai.redis.settings import settings_of
from rustic_ai.redis.store import Store
from rustic_ai.redis.units import Lane

logger = logging.getLogger(__name__)

LARGEST = 16 << 20
"""Bytes of the largest message that is taken."""
LARGEST_WITH_PARTS = 500 << 20
"""Bytes of the largest message with parts, such as arrays: a little less than what a server takes
as one value (`proto-max-bulk-len`, 512 MB)."""
LEAVE_WITHIN = 5.0
"""Seconds that `cleanup` goes on trying to reach a server that is away."""


class RedisMessagingBackend(RemoteMessagingBackend):
    """Messages through a Redis server: streams, and a consumer group for each durable place.

    A lost connection is made again, also to a server that was restarted or has taken over for
    another one; what it has not stored by then is sent once more, and stored once. What a server
    has acknowledged is as safe as its configuration makes it: ``appendonly yes`` keeps it over a
    restart, ``appendfsync always`` to the last message, `replicas` over a fail-over.

    Args:
        host: where the server is.
        port: its TCP port.
        db: number of the database.
        url: ``redis://``, ``rediss://`` (TLS) or ``unix://``; instead of host, port and db.
        username: who we are; None: the server's default user.
        password: that user's.
        ssl: whether to talk TLS.
        ssl_ca_certs: file with the certificates that may have signed the server's; default: the
            system's.
        ssl_certfile: file with our own certificate, where the server wants one.
        ssl_keyfile: file with its key.
        ssl_check_hostname: whether the certificate must be of `host`.
        prefix: what the names of all keys begin with; guilds that should not meet use others.
        reconnect_timeout: seconds for which a lost server is looked for.
        max_messages: messages that a topic keeps, beyond what subscribers still want.
        max_age: seconds for which it keeps them.
        max_pending: unacknowledged messages of one subscriber in a topic, roughly, from which on
            publishers wait; 0: no limit.
        replicas: how many replicas must have a message before it counts as stored.

    Raises:
        MessagingConfigError: a setting is wrong, or the package 'redis' is missing.
        BackendUnavailableError: the server cannot be reached.
        AccessError: the server does not let us in.
    """

    capabilities = Capabilities(
        processes=True,
        machines=True,
        redelivery=True,
        steps=True,
        fencing=True,
        back_pressure=True,
        restarts=True,
    )

    def __init__(
        self,
        host: str | None = None,
        port: int | None = None,
        db: int | None = None,
        *,
        url: str | None = None,
        username: str | None = None,
        password: str | None = None,
        ssl: bool = False,
        ssl_ca_certs: str | None = None,
        ssl_certfile: str | None = None,
        ssl_keyfile: str | None = None,
        ssl_check_hostname: bool = True,
        prefix: str = "rustic",
        reconnect_timeout: float = 30.0,
        max_messages: int = 1_000_000,
        max_age: float = 24 * 3600.0,
        max_pending: int = 100_000,
        replicas: int = 0,
    ) -> None:
        settings = settings_of(
            url,
            host=host,
            port=port,
            db=db,
            username=username,
            password=password,
            ssl=ssl,
            ssl_ca_certs=ssl_ca_certs,
            ssl_certfile=ssl_certfile,
            ssl_keyfile=ssl_keyfile,
            ssl_check_hostname=ssl_check_hostname,
            prefix=prefix,
            reconnect_timeout=reconnect_timeout,
            max_messages=max_messages,
            max_age=max_age,
            max_pending=max_pending,
            replicas=replicas,
        )
        self._store = Store(settings)
        super().__init__("redis")
        hooks = Hooks(self._deliver, self._await_room, self._lost)
        self._read = Places(self._store, hooks, self._bury)
        self._pressure = Pressure(self._store)
        self._sent, self._stepped = Lane(self._store, "sent"), Lane(self._store, "stepped")

    # Messages

    def _checked_output(self, namespace: str, topic: str, message: Message) -> Output:
        output = super()._checked_output(namespace, topic, message)
        limit = LARGEST_WITH_PARTS if message.parts else LARGEST
        if len(output.record) > limit:
            raise MessageTooLargeError(
                size=len(output.record), limit=limit, hint="send it as several messages"
            )
        return output

    def _append(self, outputs: Sequence[Output]) -> None:
        topics = [output.topic for output in outputs]
        self._pressure.await_room(topics)
        self._sent.send((), outputs)
        self._pressure.note(topics)

    def _commit(self, settled: Sequence[Delivery], outputs: Sequence[Output]) -> None:
        acknowledged = self._read.settled(settled)
        topics = [output.topic for output in outputs]
        if acknowledged or outputs:
            self._pressure.slow_down(topics)
            try:
                self._stepped.send(acknowledged, outputs)
            except GuildError as e:
                self._lost(e)  # the step is lost to this process; another may have done it
                raise
            self._read.note_settled(settled)
            self._pressure.note(topics)

    def _scan(self, topic: str, since_ms: int) -> Iterator[bytes]:
        return history.scan(self._store, topic, since_ms)

    def _topics_of(self, namespace: str) -> list[str]:
        return history.topics_of(self._store, namespace)

    # Places

    def _open_place(self, place: Place) -> None:
        self._read.open(place)

    def _close_place(self, place: Place, *, forget: bool) -> None:
        self._read.close(place, forget=forget)

    def declare(
        self, namespace: str, topic: str, subscriber: str, *, from_start: bool = False
    ) -> None:
        """Make a consumer group, where there is none."""
        self._check()
        self._read.declare(namespace, topic, subscriber, from_start=from_start)

    def disown(self, namespace: str, subscriber: str) -> None:
        """Give up the groups of a subscriber."""
        self._check()
        self._read.disown(namespace, subscriber)

    def load_subscribers(self, namespace: str) -> dict[str, list[str]]:
        """List the subscriptions of clients that are connected."""
        self._check()
        found: dict[str, list[str]] = {}
        for topic, subscriber in sorted(self._read.presence.listed()):
            if topic.startswith(f"{namespace}:"):
                found.setdefault(topic, []).append(subscriber)
        return found

    def get_statistics(self) -> dict[str, Any]:
        """Ask the server how it is: server, topics, and subscribers of each topic."""
        self._check()
        return history.statistics(self._store, self._read.presence.listed())

    # Life

    def cleanup(self) -> None:
        """Leave all places cleanly, and close the connections."""
        self._store.leave_within(LEAVE_WITHIN)
        super().cleanup()

    def _disconnect(self) -> None:
        readers = self._read.end()
        try:
            if not isinstance(self._failure, BackendUnavailableError):
                self._store.using(self._leave, limit=1.0)
        except (GuildError, *FAILURES):
            logger.warning("could not take leave of Redis; it looks like a crash", exc_info=True)
        finally:
            self._store.close()
            for reader in readers:
                reader.join()

    def _leave(self, link: Link) -> None:
        self._read.leave(link)
        self._sent.forget(link)
        self._stepped.forget(link)
