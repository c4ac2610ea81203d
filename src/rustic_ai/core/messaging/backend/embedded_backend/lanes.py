"""Priority lanes: what is urgent overtakes what is not.

Each topic has one lane per priority, a topic of the server by itself. Order holds within a lane.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Collection, Mapping, Sequence

from rustic_ai.core.messaging.backend.embedded_backend.backend import EmbeddedMessagingBackend
from rustic_ai.core.messaging.core.message import Message
from rustic_ai.core.messaging.core.messaging_backend import MessageHandler, NewPlace
from rustic_ai.core.messaging.core.priority import Priority

_AGE_BITS = (1 << 61) - 1
"""Bits of an id below its priority."""
_MARK = "\0"


class PriorityLanesMessagingBackend(EmbeddedMessagingBackend):
    """The embedded server with a lane per priority; programs that share a topic must agree on it.

    A subscriber gets what is waiting in the order of its priority: an urgent message is handled
    next, however many others wait. History is in the order in which messages were made.
    """

    def store_message(self, namespace: str, topic: str, message: Message) -> None:
        """Store the message in the lane of its priority."""
        super().store_message(namespace, _lane(topic, message.priority), message)

    def send_message(
        self, namespace: str, topic: str, message: Message, *, now: bool = False
    ) -> None:
        """Send the message to the lane of its priority."""
        super().send_message(namespace, _lane(topic, message.priority), message, now=now)

    def get_messages_for_topic(self, topic: str) -> list[Message]:
        """Return the whole history of all lanes, each in its order."""
        whole_topic = super().get_messages_for_topic
        found = list(heapq.merge(*(whole_topic(lane) for lane in _lanes(topic)), key=_age))
        for message in found:
            _leave_lane(message)
        return found

    def get_messages_for_topic_since(self, topic: str, msg_id: int) -> list[Message]:
        """Return what came after `msg_id`."""
        history = self.get_messages_for_topic(topic)
        for index, message in enumerate(history):
            if message.id == msg_id:
                return history[index + 1 :]
        made = msg_id & _AGE_BITS
        return list(itertools.dropwhile(lambda message: _age(message) <= made, history))

    def get_next_message_for_topic_since(self, topic: str, msg_id: int) -> Message | None:
        """Return the first that was made after `msg_id`."""
        return next(iter(self.get_messages_for_topic_since(topic, msg_id)), None)

    def subscribe_all(
        self,
        handlers: Mapping[str, MessageHandler],
        *,
        subscriber: str = "",
        durable: bool = False,
        from_start: Collection[str] = (),
        max_attempts: int = 0,
    ) -> None:
        """Subscribe to all lanes."""
        super().subscribe_all(
            {
                lane: _outside(handler)
                for topic, handler in handlers.items()
                for lane in _lanes(topic)
            },
            subscriber=subscriber,
            durable=durable,
            from_start={lane for topic in from_start for lane in _lanes(topic)},
            max_attempts=max_attempts,
        )

    def _rank_of(self, topic: str) -> int:
        return int(topic.partition(_MARK)[2] or Priority.NORMAL)

    def declare_all(self, namespace: str, places: Sequence[NewPlace]) -> None:
        """Let the server keep messages of all lanes for subscribers."""
        lanes = [place._replace(topic=lane) for place in places for lane in _lanes(place.topic)]
        super().declare_all(namespace, lanes)

    def unsubscribe(self, topic: str, *, subscriber: str = "") -> None:
        """End the subscription of all lanes."""
        for lane in _lanes(topic):
            super().unsubscribe(lane, subscriber=subscriber)

    def detach(self, topic: str, *, subscriber: str = "") -> None:
        """End the subscription of all lanes; durable places stay."""
        for lane in _lanes(topic):
            super().detach(lane, subscriber=subscriber)

    def load_subscribers(self, namespace: str) -> dict[str, list[str]]:
        """Ask the server who listens to the topics of the namespace."""
        found: dict[str, set[str]] = {}
        for lane, names in super().load_subscribers(namespace).items():
            found.setdefault(lane.partition(_MARK)[0], set()).update(names)
        return {topic: sorted(names) for topic, names in found.items()}


def _lane(topic: str, priority: int) -> str:
    return topic if priority == Priority.NORMAL else f"{topic}{_MARK}{int(priority)}"


def _lanes(topic: str) -> list[str]:
    return [_lane(topic, priority) for priority in Priority]


def _outside(handler: MessageHandler) -> MessageHandler:
    """Return what hands messages on that do not look as if they came from a lane."""

    def deliver(message: Message) -> None:
        _leave_lane(message)
        handler(message)

    return deliver


def _age(message: Message) -> int:
    return message.id & _AGE_BITS


def _leave_lane(message: Message) -> None:
    """Say the topic that people know."""
    if message.topic_published_to is not None:
        message.topic_published_to = message.topic_published_to.partition(_MARK)[0]
