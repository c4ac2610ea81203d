"""The messaging contract over a connection to the embedded server."""

from __future__ import annotations

import json
import logging
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from rustic_ai.core.errors import BackendUnavailableError, MessagingConfigError, ProtocolError
from rustic_ai.core.messaging.backend.embedded_backend.client import ServerConnection
from rustic_ai.core.messaging.backend.embedded_backend.config import EMBEDDED_SERVER_PORT
from rustic_ai.core.messaging.backend.embedded_backend.inbox import FrameHandler
from rustic_ai.core.messaging.backend.embedded_backend.protocol import (
    Frame,
    Query,
    pack_names,
    unpack_frames,
)
from rustic_ai.core.messaging.core.codec import decode_message, encode_message
from rustic_ai.core.messaging.core.message import Message
from rustic_ai.core.messaging.core.messaging_backend import MessageHandler, MessagingBackend
from rustic_ai.core.messaging.core.stop_signal import StopSignal

if TYPE_CHECKING:
    from rustic_ai.core.messaging.backend.embedded_backend.launcher import OwnedServer

logger = logging.getLogger(__name__)


class EmbeddedMessagingBackend(MessagingBackend):
    """Messages through the embedded server.

    Args:
        host: where the server listens.
        port: its port; 0 (with `auto_start_server`) starts one of one's own on a free port.
        auto_start_server: whether to start it where nobody listens. Several programs may do so
            at once: they share the one that was first.

    Raises:
        PortTakenError: something else listens there.
        BackendUnavailableError: nobody listens, or the server could not be started.
        MessagingConfigError: the port is none.
    """

    def __init__(
        self,
        host: str = "localhost",
        port: int = EMBEDDED_SERVER_PORT,
        auto_start_server: bool = True,  # noqa: FBT001, FBT002 - a key of configurations
    ) -> None:
        if not 0 <= port < 1 << 16 or (port == 0 and not auto_start_server):
            raise MessagingConfigError(
                summary=f"port {port} is not a port that a message server can be found at"
            )
        self._owned: OwnedServer | None = None
        self._port = port
        if auto_start_server:
            from rustic_ai.core.messaging.backend.embedded_backend import launcher

            self._connection, self._owned = launcher.connect_or_start(host, port)
            if self._owned is not None:
                self._port = self._owned.port
        else:
            self._connection = ServerConnection.open_patiently(host, port)
        self._lock = threading.Lock()
        self._topics: dict[tuple[str, str], int] = {}
        self._names: dict[int, str] = {}
        self._subscriptions: dict[tuple[str, str], int] = {}
        self._thread: threading.Thread | None = None
        self._stop = StopSignal()

    # Messages

    def store_message(self, namespace: str, topic: str, message: Message) -> None:
        """Send the message, and wait until the server has stored it."""
        number = self._topic(topic, namespace)
        envelope = encode_message(message)
        count = self._connection.publish(number, message.id, message.ttl, envelope)
        self._connection.wait_accepted(count)

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
        rows = self._connection.query(Query.BY_IDS, body=body)
        return list(self._readable(frame for row in rows for frame in unpack_frames(row.body)))

    def _history(self, topic: str, kind: Query, message_id: int = 0) -> Iterator[Message]:
        rows = self._connection.query(kind, topic=self._topic(topic), start=message_id)
        return self._readable(frame for row in rows for frame in unpack_frames(row.body))

    def _readable(self, frames: Iterator[Frame]) -> Iterator[Message]:
        now = time.time() * 1000
        for frame in frames:
            message = self._decode(frame)
            if message is not None and not message.is_expired(now):
                yield message

    def _decode(self, frame: Frame) -> Message | None:
        try:
            return decode_message(frame.body, self._names.get(frame.topic))
        except ProtocolError:
            logger.exception("a stored message cannot be read, skipped")
            return None

    def _topic(self, name: str, namespace: str = "") -> int:
        key = namespace, name
        number = self._topics.get(key)
        if number is None:
            number = self._connection.open_topic(namespace, name)
            self._names[number] = name
            self._topics[key] = number
        return number

    # Subscriptions

    def subscribe(self, topic: str, handler: MessageHandler, *, subscriber: str = "") -> None:
        """Subscribe, or replace the handler of a subscription."""

        def receive(frame: Frame) -> None:
            message = self._decode(frame)
            if message is not None and not message.is_expired(time.time() * 1000):
                handler(message)

        self._subscribe(topic, subscriber, receive)

    def _subscribe(self, topic: str, subscriber: str, receive: FrameHandler) -> None:
        key = topic, subscriber
        known = self._subscriptions.get(key)
        if known is not None:
            self._connection.replace_handler(known, receive)
            return
        number = self._topic(topic)
        self._subscriptions[key] = self._connection.subscribe(number, subscriber, receive)

    def unsubscribe(self, topic: str, *, subscriber: str = "") -> None:
        """End a subscription."""
        self._connection.check()
        number = self._subscriptions.pop((topic, subscriber), None)
        if number is not None:
            self._connection.unsubscribe(number)

    def load_subscribers(self, namespace: str) -> dict[str, list[str]]:
        """Ask the server who listens to the topics of the namespace."""
        (rows,) = self._connection.query(Query.SUBSCRIBERS, body=pack_names(namespace))
        found: dict[str, list[str]] = json.loads(rows.body)
        return found

    def supports_subscription(self) -> bool:
        """Messages are pushed."""
        return True

    def settings_for_agents(self) -> dict[str, Any]:
        """Agents use the server that is there; only programs start one."""
        return {"port": self._port, "auto_start_server": False}

    # Life

    def start(self) -> None:
        """Deliver on a thread of this object's."""
        self._connection.check()
        with self._lock:
            if self._thread is None:
                name = f"rustic-messaging-{self._port}"
                self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
                self._thread.start()

    def _serve(self) -> None:
        try:
            self._connection.serve(self._stop)
        except BackendUnavailableError:
            logger.exception("messages are no longer delivered")

    def serve(self, stop: StopSignal) -> None:
        """Deliver on the calling thread until `stop` is set."""
        self._connection.serve(stop)

    def cleanup(self) -> None:
        """Close the connection; let go of the server where this program started it."""
        self._stop.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()
        self._connection.close()
        with self._lock:
            owned, self._owned = self._owned, None
        if owned is not None:
            from rustic_ai.core.messaging.backend.embedded_backend import launcher

            launcher.release(owned)
        self._stop.close()
