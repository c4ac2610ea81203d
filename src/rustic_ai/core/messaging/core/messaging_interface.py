"""One guild's view of a backend: its topics, its history, its subscriptions."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence

from rustic_ai.core.messaging.core.dead_letter import (
    DEAD_LETTER_TOPIC,
    DeadLetterNote,
    replay_topic,
)
from rustic_ai.core.messaging.core.message import Message
from rustic_ai.core.messaging.core.messaging_backend import (
    MessageHandler,
    MessagingBackend,
    NewPlace,
)
from rustic_ai.core.messaging.core.messaging_config import MessagingConfig
from rustic_ai.core.messaging.core.stop_signal import StopSignal


class _Namer:
    """Calls a handler with messages that name their topic as the guild does.

    Args:
        topic: that name.
        prefix: what the store's begin with.
        handler: gets the messages.
    """

    def __init__(self, topic: str, prefix: str, handler: MessageHandler) -> None:
        self._topic = topic
        self._prefix = prefix
        self._handler = handler

    def deliver(self, message: Message) -> None:
        """Pass a message on."""
        dead = message.dead_letter
        name = self._topic if dead is None else dead.topic.removeprefix(self._prefix)
        message.topic_published_to = name
        self._handler(message)


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
        self._full_names: dict[str, str] = {}

    @property
    def trusted(self) -> bool:
        """Whether everybody who can publish is the same user, proven to be."""
        return self.backend.capabilities.trusted

    def allocate(self, nbytes: int) -> memoryview:
        """Return memory that parts can be sent from; see `MessagingBackend.allocate`."""
        return self.backend.allocate(nbytes)

    def publish(self, message: Message) -> None:
        """Store the message in each of its topics; returns when the store has it."""
        for topic in message.topics:
            self.backend.store_message(self.namespace, self._prefix + topic, message)

    def send(self, message: Message, now: bool = False) -> None:  # noqa: FBT001, FBT002
        """Hand the message over for each of its topics; see `MessagingBackend.send_message`."""
        full_names = self._full_names
        for topic in message.topics:
            name = full_names.get(topic)
            if name is None:  # one that is made anew would be hashed anew, each time
                name = full_names[topic] = self._prefix + topic
            self.backend.send_message(self.namespace, name, message, now=now)

    def bury(self, message: Message, subscriber: str, reason: str, attempts: int) -> None:
        """Hand a message, whole, to the dead letters: `subscriber` could not handle it."""
        note = DeadLetterNote(
            self._prefix + (message.topic_published_to or message.topics[0]),
            subscriber,
            attempts,
            reason,
            time.time_ns() // 1_000_000,
        )
        dead = Message.from_envelope(message.envelope, None, dead_letter=note)
        dead.parts = message.parts
        self.backend.send_message(self.namespace, self._prefix + DEAD_LETTER_TOPIC, dead)

    def replay(self, dead: Message) -> None:
        """Give a dead letter to its subscriber once more.

        Raises:
            ValueError: it is no dead letter.
        """
        if dead.dead_letter is None:
            raise ValueError(f"{dead!r} is no dead letter: it has no note of why it was given up")
        topic = self._prefix + replay_topic(dead.dead_letter.subscriber)
        self.backend.store_message(self.namespace, topic, dead)

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
        """Have `handler` called with every message of `topic`; see `MessagingBackend.subscribe`."""
        self.subscribe_all(
            {topic: from_start},
            handler,
            subscriber=subscriber,
            durable=durable,
            max_attempts=max_attempts,
        )

    def subscribe_all(
        self,
        topics: Mapping[str, bool],
        handler: MessageHandler,
        *,
        subscriber: str = "",
        durable: bool = False,
        max_attempts: int = 0,
    ) -> None:
        """Have `handler` called with every message of several topics.

        Args:
            topics: topic -> whether a new subscriber begins with the oldest message.
            handler: called with each message, one at a time.
            subscriber: this and the others as of `MessagingBackend.subscribe`.
            durable: the same.
            max_attempts: the same.
        """
        self.backend.subscribe_all(
            {
                self._prefix + topic: _Namer(topic, self._prefix, handler).deliver
                for topic in topics
            },
            subscriber=subscriber,
            durable=durable,
            from_start={self._prefix + topic for topic, begins in topics.items() if begins},
            max_attempts=max_attempts,
        )

    def declare(self, places: Iterable[NewPlace]) -> None:
        """Let messages wait for subscribers that are not there yet."""
        prefix = self._prefix
        full = [place._replace(topic=prefix + place.topic) for place in places]
        self.backend.declare_all(self.namespace, full)

    def unsubscribe(self, topic: str, *, subscriber: str = "") -> None:
        """End a subscription, and its place in the topic."""
        self.backend.unsubscribe(self._prefix + topic, subscriber=subscriber)

    def detach(self, topic: str, *, subscriber: str = "") -> None:
        """End a subscription, and keep its place where it is durable."""
        self.backend.detach(self._prefix + topic, subscriber=subscriber)

    def disown(self, subscriber: str) -> None:
        """Give up all places of a subscriber."""
        self.backend.disown(self.namespace, subscriber)

    def get_messages(self, topic: str, since: int | None = None) -> list[Message]:
        """Return the history of `topic`, or what it accepted after the message `since`."""
        name = self._prefix + topic
        if since is None:
            found = self.backend.get_messages_for_topic(name)
        else:
            found = self.backend.get_messages_for_topic_since(name, since)
        for message in found:
            origin = message.topic_published_to or name
            message.topic_published_to = origin.removeprefix(self._prefix)
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
