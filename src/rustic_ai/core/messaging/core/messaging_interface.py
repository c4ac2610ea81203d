"""One guild's view of a backend: its topics, its history, its subscriptions."""

from __future__ import annotations

from collections.abc import Sequence

from rustic_ai.core.messaging.core.message import Message
from rustic_ai.core.messaging.core.messaging_backend import MessageHandler, MessagingBackend
from rustic_ai.core.messaging.core.messaging_config import MessagingConfig
from rustic_ai.core.messaging.core.stop_signal import StopSignal


class MessagingInterface:
    """Publishes and subscribes within one namespace, so that guilds can share a server.

    Owns its backend: `close` cleans it up. Threads, order and errors are the backend's.

    Args:
        namespace: the guild's id.
        config: which backend to make.
    """

    def __init__(self, namespace: str, config: MessagingConfig) -> None:
        self.namespace = namespace
        self.config = config
        self.backend: MessagingBackend = config.create_backend()
        self._prefix = f"{namespace}:"

    def _qualify(self, topic: str) -> str:
        return self._prefix + topic

    def publish(self, message: Message) -> None:
        """Store the message in each of its topics."""
        for topic in message.topics:
            self.backend.store_message(self.namespace, self._prefix + topic, message)

    def subscribe(self, topic: str, handler: MessageHandler, *, subscriber: str = "") -> None:
        """Have `handler` called with every message of `topic` from now on."""
        prefix = len(self._prefix)

        def deliver(message: Message) -> None:
            if message.topic_published_to is not None:
                message.topic_published_to = message.topic_published_to[prefix:]
            handler(message)

        self.backend.subscribe(self._qualify(topic), deliver, subscriber=subscriber)

    def unsubscribe(self, topic: str, *, subscriber: str = "") -> None:
        """End a subscription."""
        self.backend.unsubscribe(self._qualify(topic), subscriber=subscriber)

    def get_messages(self, topic: str, since: int | None = None) -> list[Message]:
        """Return the history of `topic`, or what it accepted after the message `since`."""
        name = self._qualify(topic)
        if since is None:
            found = self.backend.get_messages_for_topic(name)
        else:
            found = self.backend.get_messages_for_topic_since(name, since)
        for message in found:
            message.topic_published_to = topic
        return found

    def get_messages_by_id(self, msg_ids: Sequence[int]) -> list[Message]:
        """Return messages of this namespace by their ids."""
        return self.backend.get_messages_by_id(self.namespace, msg_ids)

    def config_for_agents(self) -> MessagingConfig:
        """Return the configuration with which agents join what this object opened."""
        changed = {**self.config.backend_config, **self.backend.settings_for_agents()}
        return self.config.model_copy(update={"backend_config": changed})

    def start(self) -> None:
        """Deliver on a thread of the backend's own."""
        self.backend.start()

    def serve(self, stop: StopSignal) -> None:
        """Deliver on the calling thread until `stop` is set."""
        self.backend.serve(stop)

    def close(self) -> None:
        """Clean the backend up."""
        self.backend.cleanup()
