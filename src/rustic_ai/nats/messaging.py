"""The messaging contract over NATS JetStream."""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from rustic_ai.core.errors import MessageTooLargeError, MessagingConfigError
from rustic_ai.core.messaging.backend.remote import (
    Delivery,
    Output,
    Place,
    RemoteMessagingBackend,
)
from rustic_ai.core.messaging.core.capabilities import Capabilities
from rustic_ai.core.messaging.core.message import Message
from rustic_ai.nats.names import token_of
from rustic_ai.nats.settings import INSTALL, Bounds, Settings, Storage, Tls, checked

try:
    from rustic_ai.nats.history import Reading
    from rustic_ai.nats.session import Session
    from rustic_ai.nats.stream import Stored
except ModuleNotFoundError as e:
    if (e.name or "").partition(".")[0] != "nats":
        raise
    raise MessagingConfigError(
        summary="messages over NATS need nats-py, which is not installed", hint=INSTALL
    ) from e

T = TypeVar("T")

_LEAVE_DEADLINE = 4.0
"""Seconds for which `cleanup` says goodbye."""
_numbers = itertools.count(1)


class NatsMessagingBackend(RemoteMessagingBackend):
    """Messages through NATS JetStream: one stream for all topics, a pull consumer per subscriber.

    At least once: outputs of a handler are stored, then its message is acknowledged. A lost
    connection is made again, and doubles nothing. The stream is bounded, and the oldest goes,
    whether a subscriber still wants it or not.

    Args:
        servers: a URL, or those of several servers of a cluster: ``nats://host:port`` or
            ``tls://host:port``. Default: ``nats://localhost:4222``.
        host: of a single server, instead of `servers`.
        port: of a single server, instead of `servers`.
        user: who we are, with `password`.
        password: of `user`.
        token: who we are, where the server knows tokens.
        credentials: path of a file with a JWT and its key; needs ``pip install nkeys``.
        tls: whether the connection must be encrypted. It is where the server asks for it.
        tls_ca: path of the certificates that the server's is checked against; default: system's.
        tls_cert: path of our certificate, where the server wants one.
        tls_key: path of its key; default: it is in the same file.
        tls_hostname: name in the server's certificate; default: the host's.
        stream: name of the stream, and what subjects begin with. Guilds can share one.
        storage: of the stream: 'file' outlives the server, 'memory' does not.
        replicas: of the stream, where the server is a cluster.
        max_messages: that the stream keeps; default 1,000,000. As for the next two, the default is
            for a new stream: one that is there keeps what it has.
        max_bytes: that the stream keeps; default 1 GiB on disk, 256 MiB in memory.
        max_age: seconds for which the stream keeps a message; default a day.
        reconnect_timeout: seconds for which a lost server is looked for.

    Raises:
        MessagingConfigError: a setting is wrong, or nats-py is not installed.
        BackendUnavailableError: nobody is there, TLS is refused, or there is no JetStream.
        AccessError: the server does not let us in.
    """

    capabilities = Capabilities(processes=True, machines=True, redelivery=True, restarts=True)

    def __init__(
        self,
        servers: str | Sequence[str] | None = None,
        host: str | None = None,
        port: int | None = None,
        *,
        user: str | None = None,
        password: str | None = None,
        token: str | None = None,
        credentials: str | Path | None = None,
        tls: bool = False,
        tls_ca: str | None = None,
        tls_cert: str | None = None,
        tls_key: str | None = None,
        tls_hostname: str | None = None,
        stream: str = "rustic",
        storage: Storage = "file",
        replicas: int = 1,
        max_messages: int | None = None,
        max_bytes: int | None = None,
        max_age: float | None = None,
        reconnect_timeout: float = 30.0,
    ) -> None:
        encrypted = tls or any((tls_ca, tls_cert, tls_key, tls_hostname))
        self._settings = checked(
            servers=servers,
            host=host,
            port=port,
            user=user,
            password=password,
            token=token,
            credentials=credentials,
            tls=Tls(encrypted, tls_ca, tls_cert, tls_key, tls_hostname),
            stream=stream,
            storage=storage,
            replicas=replicas,
            bounds=Bounds(max_messages, max_bytes, max_age),
            reconnect_timeout=reconnect_timeout,
        )
        self._settings.tls.context()
        _check_nkeys(self._settings)
        super().__init__("nats")
        try:
            self._session = Session(
                self._settings,
                f"rustic-nats-loop-{next(_numbers)}",
                deliver=self._deliver,
                bury=self._bury,
                lost=self._lost,
            )
        except BaseException:
            self._arrivals.close()
            self._serving.close()
            raise

    # Messages

    def _checked_output(self, namespace: str, topic: str, message: Message) -> Output:
        output = super()._checked_output(namespace, topic, message)
        limit = self._session.largest_record
        if len(output.record) > limit:
            raise MessageTooLargeError(
                size=len(output.record),
                limit=limit,
                hint="send it as several messages, or raise max_payload in the NATS server's "
                "configuration",
            )
        return output

    def _append(self, outputs: Sequence[Output]) -> None:
        self._session.call(lambda s: s.append(outputs))

    def _commit(self, settled: Sequence[Delivery], outputs: Sequence[Output]) -> None:
        if outputs or any(delivery.place.durable for delivery in settled):
            self._session.call(lambda s: s.commit(settled, outputs))
        else:
            self._session.soon(lambda s: s.settle(settled))

    def _scan(self, topic: str, since_ms: int) -> Iterator[bytes]:
        reading = Reading(topic, since_ms)
        try:
            while chunk := self._next_chunk(reading):
                for stored in chunk:
                    yield stored.record
        finally:
            self._session.soon(lambda s: s.end_reading(reading))

    def _next_chunk(self, reading: Reading) -> list[Stored]:
        return self._session.call(
            lambda s: s.connection.retried(lambda: s.history.next_chunk(reading))
        )

    def _topics_of(self, namespace: str) -> list[str]:
        first = token_of(namespace.partition(":")[0])
        found = self._retried(lambda s: s.stream.topics(first))
        return [topic for topic in found if topic.startswith(f"{namespace}:")]

    # Subscriptions

    def _open_place(self, place: Place) -> None:
        self._retried(lambda s: s.places.open(place))

    def _close_place(self, place: Place, *, forget: bool) -> None:
        self._retried(lambda s: s.places.close(place, forget=forget))

    def declare(
        self,
        namespace: str,  # noqa: ARG002 - the topic says it
        topic: str,
        subscriber: str,
        *,
        from_start: bool = False,
    ) -> None:
        """Make a place for a subscriber, unless it has one."""
        self._check()
        place = Place(topic, subscriber, True, from_start, 0, None)
        self._retried(lambda s: s.places.declare(place))

    def disown(self, namespace: str, subscriber: str) -> None:
        """Forget all places of a subscriber."""
        self._check()
        self._retried(lambda s: s.places.disown(namespace, subscriber))

    def load_subscribers(self, namespace: str) -> dict[str, list[str]]:
        """Ask the server for consumers, and whether who reads through them is connected."""
        self._check()
        return self._retried(lambda s: s.places.listeners(namespace))

    def get_statistics(self) -> dict[str, Any]:
        """Ask the server how the stream and its consumers are."""
        self._check()
        return self._retried(lambda s: s.stream.statistics())

    def _retried(self, work: Callable[[Session], Coroutine[Any, Any, T]]) -> T:
        return self._session.call(lambda s: s.connection.retried(lambda: work(s)))

    # Life

    def _disconnect(self) -> None:
        self._session.close(_LEAVE_DEADLINE)


def _check_nkeys(settings: Settings) -> None:
    if settings.credentials is not None and importlib.util.find_spec("nkeys") is None:
        raise MessagingConfigError(
            summary="setting 'credentials' of the NATS backend needs nkeys, which is not installed",
            hint="pip install nkeys",
        )
