"""The messaging contract over a client of the embedded server."""

from __future__ import annotations

import json
import logging
import struct
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rustic_ai.core.errors import MessagingConfigError
from rustic_ai.core.messaging.backend.embedded_backend.client import ServerClient
from rustic_ai.core.messaging.backend.embedded_backend.composition import (
    Receiver,
    frame_of,
    message_of,
)
from rustic_ai.core.messaging.backend.embedded_backend.config import (
    CAPABILITIES,
    EMBEDDED_SERVER_PORT,
    SHARED_MEMORY,
    Overflow,
    Sync,
    token_from,
)
from rustic_ai.core.messaging.backend.embedded_backend.dial import (
    CONNECT_DEADLINE,
    Address,
    Link,
    Transport,
    dial,
    dial_channel,
    dial_patiently,
)
from rustic_ai.core.messaging.backend.embedded_backend.inbox import Subscription
from rustic_ai.core.messaging.backend.embedded_backend.protocol import (
    FROM_NOW,
    FROM_START,
    HANDLED,
    HEADER_SIZE,
    Frame,
    Query,
    messages_in,
    pack_names,
)
from rustic_ai.core.messaging.backend.embedded_backend.questions import pieces
from rustic_ai.core.messaging.backend.serving_thread import ServingThread
from rustic_ai.core.messaging.core.message import Message
from rustic_ai.core.messaging.core.messaging_backend import (
    MessageHandler,
    MessagingBackend,
    NewPlace,
)
from rustic_ai.core.messaging.core.stop_signal import StopSignal

if TYPE_CHECKING:
    from rustic_ai.core.messaging.backend.embedded_backend.launcher import OwnedServer

logger = logging.getLogger(__name__)


class EmbeddedMessagingBackend(MessagingBackend):
    """Messages through the embedded server.

    A lost connection is made again; a lost server is started again, where this program started it.
    What the server has not stored yet is then sent once more.

    Args:
        host: where the server listens.
        port: its port; 0 (with `auto_start_server`) starts one of one's own on a free port.
        auto_start_server: whether to start it where nobody listens. Several programs may do so
            at once: they share the one that was first.
        transport: 'unix', 'tcp', or 'auto': the Unix socket where there is one.
        token: of a server whose token file is not among this user's, in hexadecimal digits.
        reconnect_timeout: seconds for which a lost server is looked for.
        data_dir: of a server that is started: where it keeps its journal; default: in memory only.
        sync: of a server that is started: when its journal is forced to the disk.
        overflow: of a server that is started: what happens to messages for a topic that is full:
            'block': the publisher waits; 'error': it gets one; 'drop_oldest'.
        bounds: of a server that is started: the other fields of `store.Bounds`.
        shared_memory: bytes of shared memory that this client may have for large payloads on their
            way; what finds no room there travels in the message; 0: all do.

    Raises:
        PortTakenError: something else listens there.
        BackendUnavailableError: nobody listens, or the server could not be started.
        AccessError: the server does not let us in.
        MessagingConfigError: a setting is wrong.
    """

    capabilities = CAPABILITIES

    def __init__(
        self,
        host: str = "localhost",
        port: int = EMBEDDED_SERVER_PORT,
        auto_start_server: bool = True,  # noqa: FBT001, FBT002 - a key of configurations
        *,
        transport: Transport = "auto",
        token: str | None = None,
        reconnect_timeout: float = 30.0,
        data_dir: str | Path | None = None,
        sync: Sync = "interval",
        overflow: Overflow = "block",
        bounds: dict[str, float] | None = None,
        shared_memory: int = SHARED_MEMORY,
    ) -> None:
        if not 0 <= port < 1 << 16 or (port == 0 and not auto_start_server):
            raise MessagingConfigError(summary=f"no message server can be found at port {port}")
        self._address = Address(host, port, transport, token_from(token))
        self._patience = min(reconnect_timeout, CONNECT_DEADLINE)
        self._owned: OwnedServer | None = None
        self._server_settings: dict[str, Any] | None = None
        if auto_start_server:
            self._server_settings = {
                "data_dir": str(data_dir) if data_dir is not None else None,
                "sync": sync,
                "bounds": {**(bounds or {}), "overflow": overflow},
            }
        self._client: ServerClient | None = None
        self._topics: dict[tuple[str, str], int] = {}
        self._names: dict[int, str] = {}
        self._subscriptions: dict[tuple[str, str], Subscription] = {}
        self._serving = ServingThread()
        try:
            self._client = ServerClient(
                self._dial,
                lambda: str(self._address),
                reconnect_timeout,
                self._renumber,
                lambda: dial_channel(self._address),
                shared_memory,
            )
        except BaseException:
            self._serving.close()
            self._release_server()
            raise

    def _dial(self, client: int) -> Link:
        if self._server_settings is None:
            if self._client is None:  # it may just be starting
                return dial_patiently(self._address, client, self._patience)
            return dial(self._address, client)
        from rustic_ai.core.messaging.backend.embedded_backend import launcher

        link, self._owned = launcher.dial_or_start(
            self._address, client, self._server_settings, self._owned
        )
        if self._owned is not None and not self._address.port:
            address = self._address
            self._address = Address(
                address.host, self._owned.port, address.transport, address.token
            )
        return link

    def _open(self) -> ServerClient:
        assert self._client is not None
        return self._client

    # Messages

    def store_message(self, namespace: str, topic: str, message: Message) -> None:
        """Send the message, and wait until the server has stored it; in a step, with the step."""
        client = self._open()
        unit = client.publish(self._frame(namespace, topic, message, flags=1))
        if unit:
            client.outgoing.wait_stored(unit)

    def send_message(
        self, namespace: str, topic: str, message: Message, *, now: bool = False
    ) -> None:
        """Send the message, until the server has it."""
        client = self._client
        assert client is not None
        number = self._topics.get((namespace, topic))
        if number is None:
            number = self._topic(topic, namespace)
        client.publish(frame_of(message, number, 0, client), now)

    def _frame(self, namespace: str, topic: str, message: Message, flags: int = 0) -> bytes:
        number = self._topics.get((namespace, topic))
        if number is None:
            number = self._topic(topic, namespace)
        return frame_of(message, number, flags, self._open())

    def allocate(self, size: int) -> memoryview:
        """Return memory to fill and send; of `size` bytes, shared where there is some."""
        exchange = self._open().share()
        memory = exchange.allocate(size) if exchange is not None else None
        return memory or memoryview(bytearray(size))

    def get_messages_for_topic(self, topic: str) -> list[Message]:
        """Return the whole history."""
        return list(self._history(topic, Query.FROM_POSITION))

    def get_messages_for_topic_since(self, topic: str, msg_id: int) -> list[Message]:
        """Return what came after `msg_id`."""
        return list(self._history(topic, Query.SINCE_ID, msg_id))

    def get_next_message_for_topic_since(self, topic: str, msg_id: int) -> Message | None:
        """Return the first that came after `msg_id`."""
        for message in self._history(topic, Query.NEXT_AFTER_ID, msg_id):
            return message
        # The next one may have expired, or there is none.
        return next(iter(self.get_messages_for_topic_since(topic, msg_id)), None)

    def get_messages_by_id(self, namespace: str, msg_ids: Sequence[int]) -> list[Message]:
        """Look the ids up in all topics of the namespace."""
        if not msg_ids:
            return []
        body = pack_names(namespace) + struct.pack(f"<{len(msg_ids)}Q", *msg_ids)
        return list(self._readable(self._open().query(Query.BY_IDS, body=body)))

    def _history(self, topic: str, kind: Query, message_id: int = 0) -> Iterator[Message]:
        number = self._topic(topic)
        return self._readable(self._open().query(kind, topic=number, start=message_id))

    def _readable(self, answers: Iterator[Frame]) -> Iterator[Message]:
        now = time.time() * 1000
        client = self._open()
        for rows in answers:
            view = memoryview(rows.raw)
            for stored in messages_in(rows.raw, HEADER_SIZE):
                name = self._names.get(stored.topic)
                body = view[stored.start : stored.end]
                message = message_of(body, stored.flags | HANDLED, name, 1, client)
                if message is not None and not message.is_expired(now):
                    yield message

    def _topic(self, name: str, namespace: str = "") -> int:
        if (namespace, name) not in self._topics:
            self._open_topics([name], namespace)
        return self._topics[namespace, name]

    def _open_topics(self, names: Iterable[str], namespace: str = "") -> None:
        """Ask for the numbers of topics that are not known, all together."""
        new = [(namespace, n) for n in dict.fromkeys(names) if (namespace, n) not in self._topics]
        for key, number in zip(new, self._open().open_topics(new), strict=True):
            self._names[number] = key[1]
            self._topics[key] = number

    def _renumber(self, numbers: dict[int, int]) -> None:
        """Take the numbers of another server."""
        self._topics = {key: numbers.get(n, n) for key, n in self._topics.items()}
        self._names = {numbers.get(n, n): name for n, name in self._names.items()}

    # Subscriptions

    def subscribe(
        self,
        topic: str,
        handler: MessageHandler,
        *,
        subscriber: str = "",
        durable: bool = False,
        from_start: bool = False,
        max_attempts: int = 0,
    ) -> None:
        """Subscribe, or replace the handler of a subscription."""
        self.subscribe_all(
            {topic: handler},
            subscriber=subscriber,
            durable=durable,
            from_start=[topic] if from_start else (),
            max_attempts=max_attempts,
        )

    def subscribe_all(
        self,
        handlers: Mapping[str, MessageHandler],
        *,
        subscriber: str = "",
        durable: bool = False,
        from_start: Collection[str] = (),
        max_attempts: int = 0,
    ) -> None:
        """Ask for all topics, and then wait."""
        client = self._open()
        client.check()
        wanted = {}
        for topic, handler in handlers.items():
            receiver = Receiver(topic, handler, client).receive
            known = self._subscriptions.get((topic, subscriber))
            if known is not None:
                known.receiver = receiver
            else:
                wanted[topic] = receiver
        self._open_topics(wanted)
        for some in pieces(list(wanted)):
            subscriptions = {
                (topic, subscriber): Subscription(
                    self._topic(topic),
                    subscriber,
                    wanted[topic],
                    start=FROM_START if topic in from_start else FROM_NOW,
                    durable=durable,
                    max_attempts=max_attempts,
                    rank=self._rank_of(topic),
                )
                for topic in some
            }
            client.subscribe(list(subscriptions.values()))
            self._subscriptions.update(subscriptions)

    def _rank_of(self, topic: str) -> int:  # noqa: ARG002 - for backends with lanes
        """Return the rank of a subscription: those of a lower one are served first."""
        return 0

    def declare(
        self, namespace: str, topic: str, subscriber: str, *, from_start: bool = False
    ) -> None:
        """Let the server keep messages for a subscriber."""
        self.declare_all(namespace, [NewPlace(topic, subscriber, from_start)])

    def declare_all(self, namespace: str, places: Sequence[NewPlace]) -> None:
        """Let the server keep messages for subscribers."""
        self._open_topics([place.topic for place in places], namespace)
        for some in pieces(places):  # another server, with other numbers, may come in between
            self._open().declare(
                (self._topic(topic, namespace), name, FROM_START if from_start else FROM_NOW)
                for topic, name, from_start in some
            )

    def unsubscribe(self, topic: str, *, subscriber: str = "") -> None:
        """End a subscription and its place."""
        self._end(topic, subscriber, forget=True)

    def detach(self, topic: str, *, subscriber: str = "") -> None:
        """End a subscription; a durable place stays."""
        self._end(topic, subscriber, forget=False)

    def _end(self, topic: str, subscriber: str, *, forget: bool) -> None:
        client = self._open()
        client.check()
        subscription = self._subscriptions.pop((topic, subscriber), None)
        if subscription is not None:
            client.unsubscribe(subscription, forget=forget)

    def disown(self, namespace: str, subscriber: str) -> None:
        """Have the server forget a subscriber."""
        self._open().disown(namespace, subscriber)

    def load_subscribers(self, namespace: str) -> dict[str, list[str]]:
        """Ask the server who listens to the topics of the namespace."""
        found: dict[str, list[str]] = self._ask(Query.SUBSCRIBERS, pack_names(namespace))
        return found

    def get_statistics(self) -> dict[str, Any]:
        """Ask the server how it is: server, topics, and subscribers of each topic."""
        found: dict[str, Any] = self._ask(Query.STATISTICS, b"")
        return found

    def _ask(self, kind: Query, body: bytes) -> Any:
        (rows,) = self._open().query(kind, body=body)
        return json.loads(rows.body)

    def supports_subscription(self) -> bool:
        """Messages are pushed."""
        return True

    def settings_for_agents(self) -> dict[str, Any]:
        """Agents use the server that is there; only programs start one."""
        return {"port": self._address.port, "auto_start_server": False}

    # Life

    def start(self) -> None:
        """Deliver on a thread of this object's."""
        self._open().check()
        self._serving.start(f"rustic-messaging-{self._address.port}", self.serve)

    def serve(self, stop: StopSignal) -> None:
        """Deliver on the calling thread until `stop` is set."""
        self._open().serve(stop)

    def cleanup(self) -> None:
        """Close the client; let go of the server where this program started it."""
        if not self._serving.end():
            return
        self._open().close()
        self._subscriptions.clear()  # handlers may hold parts, and these what they lie in
        self._release_server()
        self._serving.close()

    def _release_server(self) -> None:
        owned, self._owned = self._owned, None
        if owned is not None:
            from rustic_ai.core.messaging.backend.embedded_backend import launcher

            launcher.release(owned)
