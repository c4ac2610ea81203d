"""The contract of everything that carries and keeps messages."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

from rustic_ai.core.messaging.core.capabilities import Capabilities
from rustic_ai.core.messaging.core.message import Message
from rustic_ai.core.messaging.core.stop_signal import StopSignal

MessageHandler = Callable[[Message], None]


class NewPlace(NamedTuple):
    """A durable place that a subscriber is to have in a topic, if it has none."""

    topic: str
    subscriber: str
    from_start: bool = False
    """Whether it begins with the oldest message, not with the next one."""


class MessagingBackend(ABC):
    """Stores messages by topic and pushes them to subscribers.

    A topic is an opaque name, unique over all namespaces (`MessagingInterface` puts the namespace
    in front). A backend object is one connection to the store; the objects of other processes
    with the same configuration see the same messages, where the backend reaches across processes.

    Order: a topic keeps messages in the order in which it accepted them, and one sender's
    messages in the order in which they were sent. History and subscribers see that order.

    Threads: every method may be called from any thread, and from inside a handler. Handlers of one
    object never run at the same time as each other.

    Steps: where the backend can (`capabilities`), what a handler stores on its own thread, and the
    word that its message was handled, take effect together when it returns, or not at all.

    Parts: large pieces of a payload (`Message.parts`) arrive with their message, read-only, and are
    what they were when it was handed over, whatever becomes of the sender's memory. They stay
    valid for as long as they are held. Dead letters have theirs. Parts that are `InBody` are
    stored as the message is.

    Time to live: an expired message is neither delivered nor listed.

    After `cleanup` every method but `cleanup` raises `BackendClosedError`. When the store is gone
    they raise `BackendUnavailableError`; none blocks for ever.
    """

    capabilities: ClassVar[Capabilities]
    """What it can beyond this contract."""

    @abstractmethod
    def store_message(self, namespace: str, topic: str, message: Message) -> None:
        """Append `message` to `topic`, and push it to the subscribers.

        Returns when the store has accepted it: whoever asks from then on sees it. In a step it
        returns at once.

        Raises:
            MessageTooLargeError: nothing was stored, and the backend goes on working.
            BackPressureError: there is no room, since subscribers do not keep up.
            BackendUnavailableError: the store is gone.
            BackendClosedError: after `cleanup`.
        """

    def send_message(
        self,
        namespace: str,
        topic: str,
        message: Message,
        *,
        now: bool = False,  # noqa: ARG002 - for backends with steps
    ) -> None:
        """Hand a message over; it is sent until the store has it, and nobody waits for that.

        What goes wrong later is raised by a later call. `now`: do not wait for the end of a step.
        """
        self.store_message(namespace, topic, message)

    def allocate(self, nbytes: int) -> memoryview:
        """Return writable memory from which a part of a message is sent with the least copying.

        What it holds is arbitrary. It lives as long as the view does, or anything made over it.
        """
        return memoryview(bytearray(nbytes))

    @abstractmethod
    def get_messages_for_topic(self, topic: str) -> list[Message]:
        """Return the whole history of `topic`, oldest first; an unknown topic has none."""

    @abstractmethod
    def get_messages_for_topic_since(self, topic: str, msg_id: int) -> list[Message]:
        """Return what `topic` accepted after the message `msg_id`, oldest first.

        Where `msg_id` is not in the history (0, or trimmed away), its time decides: the answer
        begins with the first message that was made later.
        """

    @abstractmethod
    def get_next_message_for_topic_since(self, topic: str, msg_id: int) -> Message | None:
        """Return the first message of `get_messages_for_topic_since`, or None."""

    @abstractmethod
    def get_messages_by_id(self, namespace: str, msg_ids: Sequence[int]) -> list[Message]:
        """Return the messages of `namespace` with these ids, in the order of `msg_ids`.

        Unknown ids are left out; a message that stands in several topics is returned once.
        """

    @abstractmethod
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
        """Have `handler` called with every message that `topic` accepts from now on.

        Returns when the store has taken the subscription: a message accepted after that is
        delivered. `subscriber` names whom it is for; each name has its own place in the topic, so
        several may subscribe to one topic through one object. Subscribing again under the same
        name replaces the handler. A message counts as delivered when its handler has returned. An
        exception in a handler is logged with its traceback and does not end the subscription.

        Handlers run once `start` or `serve` was called; what arrives before waits.

        Args:
            topic: the topic.
            handler: called with each message, one at a time.
            subscriber: whose place in the topic it is.
            durable: the place outlives this object: who subscribes under that name again goes on
                with the first message that was not handled, `Message.attempt` counted.
            from_start: a new place begins with the oldest message, not with the next one.
            max_attempts: crashes after which a message becomes a dead letter; 0: never.
        """

    def subscribe_all(
        self,
        handlers: Mapping[str, MessageHandler],
        *,
        subscriber: str = "",
        durable: bool = False,
        from_start: Collection[str] = (),
        max_attempts: int = 0,
    ) -> None:
        """Subscribe to several topics, each with its handler, with as little waiting as can be.

        Args:
            handlers: topic -> handler.
            from_start: those of them where a new place begins with the oldest message.
            subscriber: this and the others as of `subscribe`.
            durable: the same.
            max_attempts: the same.
        """
        for topic, handler in handlers.items():
            self.subscribe(
                topic,
                handler,
                subscriber=subscriber,
                durable=durable,
                from_start=topic in from_start,
                max_attempts=max_attempts,
            )

    @abstractmethod
    def declare(
        self, namespace: str, topic: str, subscriber: str, *, from_start: bool = False
    ) -> None:
        """Give a subscriber a durable place in a topic, where messages wait for it."""

    def declare_all(self, namespace: str, places: Sequence[NewPlace]) -> None:
        """Give subscribers durable places, with as little waiting as can be."""
        for topic, subscriber, from_start in places:
            self.declare(namespace, topic, subscriber, from_start=from_start)

    @abstractmethod
    def unsubscribe(self, topic: str, *, subscriber: str = "") -> None:
        """End a subscription, and give up its place; not an error where there is none.

        The handler is not called again.
        """

    @abstractmethod
    def detach(self, topic: str, *, subscriber: str = "") -> None:
        """End a subscription as `unsubscribe`, but keep its place where it is durable."""

    @abstractmethod
    def disown(self, namespace: str, subscriber: str) -> None:
        """Give up all places of a subscriber: it will not come back."""

    def get_statistics(self) -> dict[str, Any]:
        """Return what the store tells of itself, its topics and their subscribers."""
        return {}

    @abstractmethod
    def load_subscribers(self, namespace: str) -> dict[str, list[str]]:
        """Return topic -> names of its subscribers, over all processes, for one namespace."""

    @abstractmethod
    def supports_subscription(self) -> bool:
        """Say whether messages are pushed; otherwise readers have to ask for history."""

    @abstractmethod
    def start(self) -> None:
        """Deliver on a thread of the backend's own until `cleanup`; for programs. Idempotent."""

    @abstractmethod
    def serve(self, stop: StopSignal) -> None:
        """Deliver on the calling thread until `stop` is set; for agent processes.

        Returns between two messages; what was not handled stays undelivered.

        Raises:
            BackendUnavailableError: the store went away meanwhile.
        """

    def settings_for_agents(self) -> dict[str, Any]:
        """Return the configuration keys that differ for agents which join this store."""
        return {}

    @abstractmethod
    def cleanup(self) -> None:
        """End all subscriptions and give everything back: threads, sockets, helpers. Idempotent."""
