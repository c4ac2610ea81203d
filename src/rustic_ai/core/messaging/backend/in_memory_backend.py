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
from rustic_ai.core.messaging.core.capabilities import Capabilities
from rustic_ai.core.messaging.core.codec import decode_message, encode_message
from rustic_ai.core.messaging.core.message import Message
from rustic_ai.core.messaging.core.message_id import id_time_ms
from rustic_ai.core.messaging.core.messaging_backend import MessageHandler, MessagingBackend
from rustic_ai.core.messaging.core.stop_signal import StopSignal

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Topic:
    messages: list[Message] = field(default_factory=list)
    handlers: dict[str, MessageHandler | None] = field(default_factory=dict)
    """None: a durable place whose subscriber is not there."""
    durable: set[str] = field(default_factory=set)
    backlog: dict[str, deque[Message]] = field(default_factory=dict)
    """What waits for subscribers that are not there."""


class InMemoryMessagingBackend(MessagingBackend):
    """Keeps everything in this object; a message is delivered by the thread that publishes it.

    A publish from inside a handler is queued and delivered when that handler has returned, so
    agents that answer each other do not nest. If another thread is delivering at that moment, it
    delivers this message too. Parts of messages are copied, once for all subscribers.
    """

    capabilities = Capabilities(trusted=True)

    def __init__(self) -> None:
        self._topics: dict[str, _Topic] = {}
        self._namespaces: dict[str, set[str]] = {}
        self._pending: deque[tuple[str, str, Message]] = deque()
        self._lock = threading.Lock()
        self._started = self._delivering = self._closed = False

    def store_message(self, namespace: str, topic: str, message: Message) -> None:
        """Append, then deliver unless somebody already does."""
        if message.parts:
            message = _snapshot(message)
        with self._lock:
            self._check_open()
            entry = self._topics.setdefault(topic, _Topic())
            self._namespaces.setdefault(namespace, set()).add(topic)
            entry.messages.append(message)
            for subscriber in entry.handlers:
                copy = _arrived(message, topic)
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
                entry = self._topics[topic]
                handler = entry.handlers.get(subscriber)
                if handler is None and subscriber in entry.durable:
                    entry.backlog.setdefault(subscriber, deque()).append(message)
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
        return [_arrived(m, topic) for m in stored if not m.is_expired(now)]

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

    def subscribe(
        self,
        topic: str,
        handler: MessageHandler,
        *,
        subscriber: str = "",
        durable: bool = False,
        from_start: bool = False,
        max_attempts: int = 0,  # noqa: ARG002 - who crashes here crashes all
    ) -> None:
        """Add or replace a handler; what waited for it comes first."""
        with self._lock:
            self._check_open()
            entry = self._place(topic, subscriber, from_start=from_start)
            entry.handlers[subscriber] = handler
            if durable:
                entry.durable.add(subscriber)
            waited = entry.backlog.pop(subscriber, deque())
            self._pending.extendleft((topic, subscriber, m) for m in reversed(waited))
        self._deliver()

    def _place(self, topic: str, subscriber: str, *, from_start: bool) -> _Topic:
        entry = self._topics.setdefault(topic, _Topic())
        if subscriber not in entry.handlers and from_start:
            copies = (_arrived(m, topic) for m in entry.messages)
            entry.backlog[subscriber] = deque(copies)
        return entry

    def declare(
        self, namespace: str, topic: str, subscriber: str, *, from_start: bool = False
    ) -> None:
        """Let messages wait for a subscriber."""
        with self._lock:
            self._check_open()
            self._namespaces.setdefault(namespace, set()).add(topic)
            entry = self._place(topic, subscriber, from_start=from_start)
            entry.handlers.setdefault(subscriber, None)
            entry.durable.add(subscriber)

    def unsubscribe(self, topic: str, *, subscriber: str = "") -> None:
        """Remove a handler and its place."""
        with self._lock:
            self._check_open()
            self._drop(topic, subscriber)

    def _drop(self, topic: str, subscriber: str) -> None:
        entry = self._topics.get(topic)
        if entry is not None:
            entry.handlers.pop(subscriber, None)
            entry.durable.discard(subscriber)
            entry.backlog.pop(subscriber, None)

    def detach(self, topic: str, *, subscriber: str = "") -> None:
        """Remove a handler; a durable place stays."""
        with self._lock:
            self._check_open()
            entry = self._topics.get(topic)
            if entry is not None and subscriber in entry.durable:
                entry.handlers[subscriber] = None
            else:
                self._drop(topic, subscriber)

    def disown(self, namespace: str, subscriber: str) -> None:
        """Remove all places of a subscriber."""
        with self._lock:
            self._check_open()
            for topic in self._topics:
                if topic.startswith(f"{namespace}:"):
                    self._drop(topic, subscriber)

    def load_subscribers(self, namespace: str) -> dict[str, list[str]]:
        """List the subscribers of the namespace."""
        with self._lock:
            self._check_open()
            found = {
                name: sorted(s for s, handler in topic.handlers.items() if handler is not None)
                for name, topic in self._topics.items()
                if name.startswith(f"{namespace}:")
            }
            return {name: subscribers for name, subscribers in found.items() if subscribers}

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


def _snapshot(message: Message) -> Message:
    """Return the message as it is now, whatever its sender does with its memory."""
    copy = decode_message(encode_message(message), None)
    copy.dead_letter = message.dead_letter
    return copy


def _arrived(message: Message, topic: str) -> Message:
    note = message.dead_letter
    if note is None:
        found = Message.from_envelope(message.envelope, topic)
    else:
        found = Message.from_envelope(message.envelope, note.topic, note.attempts + 1, note)
    found.parts = message.parts
    return found
