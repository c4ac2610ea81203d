"""One participant's access to the messages of its guild."""

from __future__ import annotations

from abc import ABC, abstractmethod

from rustic_ai.core.messaging.core.message import AgentTag, Message
from rustic_ai.core.messaging.core.messaging_backend import MessageHandler
from rustic_ai.core.messaging.core.messaging_interface import MessagingInterface


class Client(ABC):
    """Publishes and subscribes in the name of one participant; safe from any thread."""

    tag: AgentTag

    @abstractmethod
    def publish(self, message: Message) -> None:
        """Store the message in each of its topics; returns when it was accepted."""

    @abstractmethod
    def subscribe(self, topic: str) -> None:
        """Receive what `topic` accepts from now on; returns when the store knows."""

    @abstractmethod
    def unsubscribe(self, topic: str) -> None:
        """Receive no more from `topic`."""

    @abstractmethod
    def close(self) -> None:
        """End all subscriptions; the messaging interface stays open. Idempotent."""


class SimpleClient(Client):
    """Passes every message straight to one handler.

    Args:
        tag: who this is; the id names its subscriptions.
        messaging: the guild's messages.
        handler: called with each message, one at a time.
    """

    def __init__(
        self, tag: AgentTag, messaging: MessagingInterface, handler: MessageHandler
    ) -> None:
        self.tag = tag
        self._messaging = messaging
        self._handler = handler
        self._topics: set[str] = set()

    def publish(self, message: Message) -> None:
        """Store the message in each of its topics."""
        self._messaging.publish(message)

    def subscribe(self, topic: str) -> None:
        """Receive what `topic` accepts from now on."""
        self._messaging.subscribe(topic, self._handler, subscriber=self.tag.id or "")
        self._topics.add(topic)

    def unsubscribe(self, topic: str) -> None:
        """Receive no more from `topic`."""
        self._topics.discard(topic)
        self._messaging.unsubscribe(topic, subscriber=self.tag.id or "")

    def close(self) -> None:
        """End all subscriptions."""
        for topic in sorted(self._topics):
            self.unsubscribe(topic)
