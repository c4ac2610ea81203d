"""Messages within one process: for the sync engine and for tests."""

from __future__ import annotations

import itertools
import logging
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from rustic_ai.core.errors import BackendClosedError
from rustic_ai.core.messaging.core.message import Message
from rustic_ai.core.messaging.core.message_id import id_time_ms
from rustic_ai.core.messaging.core.messaging_backend import MessageHandler, MessagingBackend
from rustic_ai.core.messaging.core.stop_signal import StopSignal

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Topic:
    messages: list[Message] = field(default_factory=list)
    handlers: dict[str, MessageHandler] = field(default_factory=dict)


class InMemoryMessagingBackend(MessagingBackend):
    """Keeps everything in this object; a message is delivered by the thread that publishes it.

    A publish from inside a handler is queued and delivered when that handler has returned, so
    agents that answer each other do not nest. If another thread is delivering at that moment, it
    delivers this message too.
    """

    def __init__(self) -> None:
        self._topics: dict[str, _Topic] = {}
        self._namespaces: dict[str, set[str]] = {}
        self._pending: deque[tuple[str, str, Message]] = deque()
        self._lock = threading.Lock()
        self._started = self._delivering = self._closed = False

    def store_message(self, namespace: str, topic: str, message: Message) -> None:
        """Append, then deliver unless somebody already does."""
        with self._lock:
            self._check_open()
            entry = self._topics.setdefault(topic, _Topic())
            self._namespaces.setdefault(namespace, set()).add(topic)
            entry.messages.append(message)
            for subscriber in entry.handlers:
                copy = Message.from_envelope(message.envelope, topic)
                self._pending.append((topic, subscriber, copy))
        self._deliver()

    def _deliver(self, until: Callable[[], bool] = lambda: False) -> None:
        with self._lock:
            if self._delivering or not self._started:
                return
            self._delivering = True
        while True:
            with self._lock:
                if not self._pending or self._closed or until():
                    self._delivering = False
                    return
                topic, subscriber, message = self._pending.popleft()
                handler = self._topics[topic].handlers.get(subscriber)
            if handler is not None and not message.is_expired(time.time() * 1000):
                self._call(handler, message)

    def _call(self, handler: MessageHandler, message: Message) -> None:
        try:
            handler(message)
        except Exception:
            logger.exception("handler of %s failed", message.topic_published_to)
        except BaseException:
            with self._lock:
                self._delivering = False
            raise

    def _history(self, topic: str) -> list[Message]:
        now = time.time() * 1000
        with self._lock:
            self._check_open()
            entry = self._topics.get(topic)
            stored = list(entry.messages) if entry else []
        return [Message.from_envelope(m.envelope, topic) for m in stored if not m.is_expired(now)]

    def get_messages_for_topic(self, topic: str) -> list[Message]:
        """Return the whole history."""
        return self._history(topic)

    def get_messages_for_topic_since(self, topic: str, msg_id: int) -> list[Message]:
        """Return what came after `msg_id`."""
        history = self._history(topic)
        for index, message in enumerate(history):
            if message.id == msg_id:
                return history[index + 1 :]
        made = id_time_ms(msg_id)
        return list(itertools.dropwhile(lambda message: message.timestamp <= made, history))

    def get_next_message_for_topic_since(self, topic: str, msg_id: int) -> Message | None:
        """Return the first that came after `msg_id`."""
        return next(iter(self.get_messages_for_topic_since(topic, msg_id)), None)

    def get_messages_by_id(self, namespace: str, msg_ids: Sequence[int]) -> list[Message]:
        """Look the ids up in all topics of the namespace."""
        with self._lock:
            self._check_open()
            topics = sorted(self._namespaces.get(namespace, ()))
        found = {m.id: m for topic in topics for m in self._history(topic)}
        return [found[i] for i in msg_ids if i in found]

    def subscribe(self, topic: str, handler: MessageHandler, *, subscriber: str = "") -> None:
        """Add or replace a handler."""
        with self._lock:
            self._check_open()
            self._topics.setdefault(topic, _Topic()).handlers[subscriber] = handler

    def unsubscribe(self, topic: str, *, subscriber: str = "") -> None:
        """Remove a handler."""
        with self._lock:
            self._check_open()
            if topic in self._topics:
                self._topics[topic].handlers.pop(subscriber, None)

    def load_subscribers(self, namespace: str) -> dict[str, list[str]]:
        """List the subscribers of the namespace."""
        with self._lock:
            self._check_open()
            return {
                name: sorted(topic.handlers)
                for name, topic in self._topics.items()
                if name.startswith(f"{namespace}:") and topic.handlers
            }

    def supports_subscription(self) -> bool:
        """Messages are pushed."""
        return True

    def start(self) -> None:
        """Let publishers deliver from now on, and deliver what waits."""
        with self._lock:
            self._check_open()
            self._started = True
        self._deliver()

    def serve(self, stop: StopSignal) -> None:
        """Deliver what waits, then leave the rest to the publishers until `stop`."""
        with self._lock:
            self._check_open()
            self._started = True
        self._deliver(until=stop.is_set)
        select.select([stop], [], [])
        with self._lock:
            self._started = False

    def cleanup(self) -> None:
        """Forget everything."""
        with self._lock:
            self._closed = True
            self._topics.clear()
            self._namespaces.clear()
            self._pending.clear()

    def _check_open(self) -> None:
        if self._closed:
            raise BackendClosedError
