"""One participant's access to the messages of its guild."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

from rustic_ai.core.messaging.core.envelope import AgentTag
from rustic_ai.core.messaging.core.message import Message
from rustic_ai.core.messaging.core.messaging_backend import MessageHandler
from rustic_ai.core.messaging.core.messaging_interface import MessagingInterface


class Client(ABC):
    """Publishes and subscribes in the name of one participant; safe from any thread."""

    tag: AgentTag

    @abstractmethod
    def publish(self, message: Message, *, now: bool = False) -> None:
        """Store the message in each of its topics.

        Args:
            message: the message.
            now: in a handler: do not wait for its end.
        """

    @abstractmethod
    def bury(self, message: Message, reason: str, attempts: int) -> None:
        """Hand a message to the dead letters, since it cannot be handled."""

    @abstractmethod
    def subscribe(self, topic: str, *, from_start: bool = False) -> None:
        """Receive what `topic` accepts from now on; returns when the store knows.

        Args:
            topic: the topic.
            from_start: a subscriber that is new begins with the oldest message.
        """

    def subscribe_all(self, topics: Mapping[str, bool]) -> None:
        """Subscribe to several topics: topic -> `from_start`."""
        for topic, from_start in topics.items():
            self.subscribe(topic, from_start=from_start)

    @abstractmethod
    def unsubscribe(self, topic: str) -> None:
        """Receive no more from `topic`."""

    @property
    def trusted(self) -> bool:
        """Whether everybody who can publish is the same user, proven to be."""
        return False

    def allocate(self, nbytes: int) -> memoryview:
        """Return writable memory from which a part of a message is sent with the least copying."""
        return memoryview(bytearray(nbytes))

    @abstractmethod
    def close(self) -> None:
        """End all subscriptions; the messaging interface stays open. Idempotent."""


class SimpleClient(Client):
    """Passes every message straight to one handler.

    Args:
        tag: who this is; the id names its subscriptions.
        messaging: the guild's messages.
        handler: called with each message, one at a time.
        durable: whether its subscriptions outlive it, and nobody waits for the store: for agents.
        max_attempts: crashes after which a message becomes a dead letter; 0: never.
    """

    def __init__(
        self,
        tag: AgentTag,
        messaging: MessagingInterface,
        handler: MessageHandler,
        *,
        durable: bool = False,
        max_attempts: int = 0,
    ) -> None:
        self.tag = tag
        self._messaging = messaging
        self._handler = handler
        self._durable = durable
        self._max_attempts = max_attempts
        self._topics: set[str] = set()

    @property
    def trusted(self) -> bool:
        """Whether everybody who can publish is the same user, proven to be."""
        return self._messaging.trusted

    def allocate(self, nbytes: int) -> memoryview:
        """Return memory of the backend's."""
        return self._messaging.allocate(nbytes)

    def publish(self, message: Message, *, now: bool = False) -> None:
        """Store the message in each of its topics; a durable client does not wait for it."""
        if self._durable:
            self._messaging.send(message, now)
        else:
            self._messaging.publish(message)

    def bury(self, message: Message, reason: str, attempts: int) -> None:
        """Hand a message to the dead letters."""
        self._messaging.bury(message, self.tag.id or "", reason, attempts)

    def subscribe(self, topic: str, *, from_start: bool = False) -> None:
        """Receive what `topic` accepts from now on, or has kept for this subscriber."""
        self.subscribe_all({topic: from_start})

    def subscribe_all(self, topics: Mapping[str, bool]) -> None:
        """Receive what several topics accept from now on, or have kept for this subscriber."""
        self._topics.update(topics)
        self._messaging.subscribe_all(
            topics,
            self._handler,
            subscriber=self.tag.id or "",
            durable=self._durable,
            max_attempts=self._max_attempts,
        )

    def unsubscribe(self, topic: str) -> None:
        """Receive no more from `topic`."""
        self._topics.discard(topic)
        self._messaging.unsubscribe(topic, subscriber=self.tag.id or "")

    def close(self) -> None:
        """End all subscriptions; what was kept for a durable client stays kept."""
        for topic in sorted(self._topics):
            self._messaging.detach(topic, subscriber=self.tag.id or "")
        self._topics.clear()
