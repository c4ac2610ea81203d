"""What every messaging backend promises to subscribers that go away and come back."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from rustic_ai.core.messaging.core.message import Message
from rustic_ai.core.messaging.core.messaging_backend import MessagingBackend, NewPlace
from rustic_ai.core.testing.contracts.messaging_backend import SPACE, TOPIC, Box, message
from rustic_ai.core.testing.waiting import wait_until

Connect = Callable[[], MessagingBackend]


def publish(backend: MessagingBackend, *texts: str) -> None:
    """Store messages."""
    for text in texts:
        backend.store_message(SPACE, TOPIC, message(text))


class DurableMessagingContract:
    """Inherit beside `MessagingBackendContract`, with the same fixture `connect`."""

    @pytest.fixture
    def backend(self, connect: Connect) -> MessagingBackend:
        """Give a connection that delivers."""
        backend = connect()
        backend.start()
        return backend

    def test_messages_wait_for_a_durable_subscriber(self, backend: MessagingBackend) -> None:
        """What is accepted while it is away is delivered when it comes back, once and in order."""
        before, after = Box(), Box()
        backend.subscribe(TOPIC, before, subscriber="a", durable=True)
        publish(backend, "1")
        before.wait("1")
        backend.detach(TOPIC, subscriber="a")
        publish(backend, "2", "3")
        backend.subscribe(TOPIC, after, subscriber="a", durable=True)
        publish(backend, "4")
        after.wait("2", "3", "4")
        assert before.texts == ["1"]

    def test_other_subscribers_have_no_place_to_keep(self, backend: MessagingBackend) -> None:
        """Without `durable`, what came while a subscriber was away is not for it."""
        box = Box()
        backend.subscribe(TOPIC, Box(), subscriber="a")
        backend.detach(TOPIC, subscriber="a")
        publish(backend, "1")
        backend.subscribe(TOPIC, box, subscriber="a")
        publish(backend, "2")
        box.wait("2")

    def test_messages_wait_for_who_was_declared(self, backend: MessagingBackend) -> None:
        """A place can be made before its subscriber exists; making it again changes nothing."""
        box = Box()
        publish(backend, "0")
        backend.declare(SPACE, TOPIC, "a")
        publish(backend, "1")
        backend.declare(SPACE, TOPIC, "a")
        publish(backend, "2")
        backend.subscribe(TOPIC, box, subscriber="a", durable=True)
        box.wait("1", "2")

    def test_a_new_place_may_begin_at_the_start(self, backend: MessagingBackend) -> None:
        """`from_start` is for subscribers that are new; others go on where they were."""
        first, second = Box(), Box()
        publish(backend, "1", "2")
        backend.subscribe(TOPIC, first, subscriber="a", durable=True, from_start=True)
        first.wait("1", "2")
        backend.detach(TOPIC, subscriber="a")
        backend.subscribe(TOPIC, second, subscriber="a", durable=True, from_start=True)
        publish(backend, "3")
        second.wait("3")

    def test_places_in_several_topics_at_once(self, backend: MessagingBackend) -> None:
        """What is asked for together is what each would be that is asked for alone."""
        old, new, there = (f"{SPACE}:{name}" for name in ("old", "new", "there"))
        boxes = {topic: Box() for topic in (old, new, there)}
        before, late = Box(), Box()
        backend.subscribe(there, before, subscriber="a", durable=True)
        for topic in boxes:
            backend.store_message(SPACE, topic, message("1"))
        backend.declare_all(SPACE, [NewPlace(old, "a", from_start=True), NewPlace(there, "b")])
        for topic in boxes:
            backend.store_message(SPACE, topic, message("2"))
        before.wait("1", "2")
        backend.subscribe_all(boxes, subscriber="a", durable=True, from_start=[old, there])
        backend.subscribe_all({there: late}, subscriber="b", durable=True)
        for topic in boxes:
            backend.store_message(SPACE, topic, message("3"))
        boxes[old].wait("1", "2", "3")
        boxes[new].wait("3")
        late.wait("2", "3")
        boxes[there].wait("3")
        backend.subscribe_all({}, subscriber="a")
        backend.declare_all(SPACE, [])

    def test_a_place_that_was_given_up_is_gone(self, backend: MessagingBackend) -> None:
        """After `unsubscribe` or `disown` a subscriber begins anew."""
        ways: list[Callable[[], None]] = [
            lambda: backend.unsubscribe(TOPIC, subscriber="a"),
            lambda: backend.disown(SPACE, "a"),
        ]
        for give_up in ways:
            box = Box()
            backend.declare(SPACE, TOPIC, "a")
            backend.subscribe(TOPIC, Box(), subscriber="a", durable=True)
            give_up()
            publish(backend, "while away")
            backend.detach(TOPIC, subscriber="a")
            backend.subscribe(TOPIC, box, subscriber="a", durable=True)
            publish(backend, "later")
            box.wait("later")
            backend.unsubscribe(TOPIC, subscriber="a")

    def test_places_are_each_subscribers_own(self, backend: MessagingBackend) -> None:
        """One that is away holds up no other, and loses nothing to it."""
        here, away = Box(), Box()
        backend.declare(SPACE, TOPIC, "away")
        backend.subscribe(TOPIC, here, subscriber="here", durable=True)
        publish(backend, *map(str, range(50)))
        here.wait(*map(str, range(50)))
        backend.subscribe(TOPIC, away, subscriber="away", durable=True)
        away.wait(*map(str, range(50)))

    def test_messages_handed_over_arrive_in_order(self, backend: MessagingBackend) -> None:
        """`send_message` waits for nobody; what it sends comes before what is stored later."""
        box = Box()
        backend.subscribe(TOPIC, box)
        for n in range(500):
            backend.send_message(SPACE, TOPIC, message(str(n)))
        backend.store_message(SPACE, TOPIC, message("last"))
        box.wait(*map(str, range(500)), "last")

    def test_a_delivery_counts_its_attempt(self, backend: MessagingBackend) -> None:
        """The first delivery of a message is attempt 1."""
        box = Box()
        backend.subscribe(TOPIC, box, subscriber="a", durable=True)
        publish(backend, "1")
        box.wait("1")
        assert [m.attempt for m in box.messages] == [1]

    def test_who_was_not_there_at_all_is_not_listed(self, backend: MessagingBackend) -> None:
        """Only subscribers that are connected are listed."""
        backend.declare(SPACE, TOPIC, "a")
        assert backend.load_subscribers(SPACE) == {}
        backend.subscribe(TOPIC, Box(), subscriber="a", durable=True)
        assert backend.load_subscribers(SPACE) == {TOPIC: ["a"]}
        backend.detach(TOPIC, subscriber="a")
        assert backend.load_subscribers(SPACE) == {}

    def test_what_a_handler_sends_arrives_after_it_has_returned(
        self, backend: MessagingBackend
    ) -> None:
        """Outputs of a handler reach subscribers once, in their order."""
        box = Box()

        def relay(got: Message) -> None:
            for n in range(3):
                backend.send_message(SPACE, "space:out", message(f"{got.payload['text']}{n}"))

        backend.subscribe("space:out", box)
        backend.subscribe(TOPIC, relay, subscriber="relay", durable=True)
        publish(backend, "a", "b")
        box.wait("a0", "a1", "a2", "b0", "b1", "b2")

    def test_an_urgent_message_does_not_wait_for_its_handler(
        self, backend: MessagingBackend
    ) -> None:
        """With `now` a message of a handler is stored while the handler still runs."""
        seen: list[int] = []

        def work(_: Message) -> None:
            backend.send_message(SPACE, "space:out", message("on my way"), now=True)
            wait_until(lambda: len(backend.get_messages_for_topic("space:out")) == 1)
            seen.append(1)

        backend.subscribe(TOPIC, work, subscriber="worker", durable=True)
        publish(backend, "go")
        wait_until(lambda: seen)
