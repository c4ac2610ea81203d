"""What every messaging backend promises."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from rustic_ai.core.errors import BackendClosedError
from rustic_ai.core.messaging.core.envelope import AgentTag
from rustic_ai.core.messaging.core.message import Message
from rustic_ai.core.messaging.core.message_id import GemstoneGenerator
from rustic_ai.core.messaging.core.messaging_backend import MessagingBackend
from rustic_ai.core.messaging.core.priority import Priority
from rustic_ai.core.messaging.core.stop_signal import StopSignal
from rustic_ai.core.testing.waiting import wait_until

Connect = Callable[[], MessagingBackend]

SPACE = "space"
TOPIC = "space:topic"
_ids = GemstoneGenerator()


def message(
    text: str = "", *, ttl: float | None = None, priority: Priority = Priority.NORMAL
) -> Message:
    """Make a message."""
    return Message(
        id_obj=_ids.get_id(priority),
        sender=AgentTag("tester", "tester"),
        topics="topic",
        payload={"text": text},
        ttl=ttl,
    )


class Box:
    """Collects what a handler gets."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    def __call__(self, got: Message) -> None:
        """Keep a message."""
        self.messages.append(got)

    @property
    def texts(self) -> list[str]:
        """The texts so far."""
        return [m.payload["text"] for m in self.messages]

    def wait(self, *texts: str) -> None:
        """Wait until exactly these texts have come, in this order."""
        wait_until(lambda: len(self.messages) >= len(texts))
        assert self.texts == list(texts)


class MessagingBackendContract:
    """Inherit, and give the fixture `connect`.

    It returns a function that makes another connection to one and the same fresh store. All are
    cleaned up afterwards. Where a backend lives in one object, it returns that object every time.
    """

    @pytest.fixture
    def backend(self, connect: Connect) -> MessagingBackend:
        """Give a connection that delivers."""
        backend = connect()
        backend.start()
        return backend

    @pytest.fixture
    def publisher(self, connect: Connect) -> MessagingBackend:
        """Give another one."""
        return connect()

    def test_history_keeps_the_order_of_acceptance(
        self, backend: MessagingBackend, publisher: MessagingBackend
    ) -> None:
        """What was stored is listed, oldest first, whatever its priority, by any connection."""
        sent = [message("low", priority=Priority.LOW), message("urgent", priority=Priority.URGENT)]
        for one in sent:
            publisher.store_message(SPACE, TOPIC, one)
        listed = backend.get_messages_for_topic(TOPIC)
        assert listed == sent
        assert [m.topic_published_to for m in listed] == [TOPIC, TOPIC]
        assert listed[1].priority is Priority.URGENT

    def test_an_unknown_topic_is_empty(self, backend: MessagingBackend) -> None:
        """A topic that nobody wrote to has no history."""
        assert backend.get_messages_for_topic("space:nothing") == []
        assert backend.get_next_message_for_topic_since("space:nothing", 0) is None

    def test_history_since_an_id(self, backend: MessagingBackend) -> None:
        """'Since' and 'next' go on after a message; 0 means from the beginning."""
        sent = [message(str(n)) for n in range(5)]
        for one in sent:
            backend.store_message(SPACE, TOPIC, one)
        assert backend.get_messages_for_topic_since(TOPIC, sent[1].id) == sent[2:]
        assert backend.get_messages_for_topic_since(TOPIC, sent[4].id) == []
        assert backend.get_messages_for_topic_since(TOPIC, 0) == sent
        assert backend.get_next_message_for_topic_since(TOPIC, sent[1].id) == sent[2]
        assert backend.get_next_message_for_topic_since(TOPIC, 0) == sent[0]
        assert backend.get_next_message_for_topic_since(TOPIC, sent[4].id) is None

    def test_messages_by_id(self, backend: MessagingBackend) -> None:
        """Ids find messages in all topics of their namespace, in the order asked, each once."""
        a, b, c = message("a"), message("b"), message("c")
        backend.store_message(SPACE, TOPIC, a)
        backend.store_message(SPACE, "space:other", b)
        backend.store_message(SPACE, "space:other", a)
        backend.store_message("elsewhere", "elsewhere:topic", c)
        assert backend.get_messages_by_id(SPACE, [b.id, 12345, a.id, c.id]) == [b, a]
        assert backend.get_messages_by_id(SPACE, []) == []
        assert backend.get_messages_by_id("nowhere", [a.id]) == []

    def test_a_long_history_comes_whole(self, backend: MessagingBackend) -> None:
        """History of several chunks is complete and in order."""
        sent = [message("x" * 1000) for _ in range(1500)]
        for one in sent:
            backend.store_message(SPACE, TOPIC, one)
        assert backend.get_messages_for_topic(TOPIC) == sent
        assert backend.get_messages_for_topic_since(TOPIC, sent[9].id) == sent[10:]
        ids = [m.id for m in sent]
        assert backend.get_messages_by_id(SPACE, ids) == sent

    def test_delivery_begins_with_the_subscription(
        self, backend: MessagingBackend, publisher: MessagingBackend
    ) -> None:
        """What is accepted after `subscribe` returned is delivered, what came before is not."""
        box = Box()
        publisher.store_message(SPACE, TOPIC, message("before"))
        backend.subscribe(TOPIC, box)
        publisher.store_message(SPACE, TOPIC, message("one"))
        publisher.store_message(SPACE, TOPIC, message("two"))
        publisher.store_message(SPACE, "space:other", message("elsewhere"))
        box.wait("one", "two")
        assert {m.topic_published_to for m in box.messages} == {TOPIC}
        assert backend.supports_subscription()

    def test_every_subscriber_gets_everything(
        self, backend: MessagingBackend, publisher: MessagingBackend
    ) -> None:
        """Subscribers of different names, on one connection or several, each get all."""
        boxes = Box(), Box(), Box()
        publisher.start()
        backend.subscribe(TOPIC, boxes[0], subscriber="a")
        backend.subscribe(TOPIC, boxes[1], subscriber="b")
        publisher.subscribe(TOPIC, boxes[2], subscriber="c")
        for text in ("1", "2", "3"):
            publisher.store_message(SPACE, TOPIC, message(text))
        for box in boxes:
            box.wait("1", "2", "3")

    def test_order_holds_per_topic_and_publisher(
        self, backend: MessagingBackend, connect: Connect
    ) -> None:
        """Messages of several publishers at once arrive whole, each publisher's in its order."""
        box = Box()
        backend.subscribe(TOPIC, box)

        def publish(name: str) -> None:
            own = connect()
            for n in range(100):
                own.store_message(SPACE, TOPIC, message(f"{name}{n}"))

        threads = [threading.Thread(target=publish, args=(name,)) for name in "abc"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        wait_until(lambda: len(box.messages) == 300)
        for name in "abc":
            assert [t for t in box.texts if t[0] == name] == [f"{name}{n}" for n in range(100)]
        assert backend.get_messages_for_topic(TOPIC) == box.messages

    def test_unsubscribing_ends_delivery(self, backend: MessagingBackend) -> None:
        """After `unsubscribe` the handler gets nothing more; another subscriber does."""
        box, other = Box(), Box()
        backend.subscribe(TOPIC, box, subscriber="a")
        backend.subscribe(TOPIC, other, subscriber="b")
        backend.store_message(SPACE, TOPIC, message("one"))
        box.wait("one")
        backend.unsubscribe(TOPIC, subscriber="a")
        backend.unsubscribe(TOPIC, subscriber="a")
        backend.unsubscribe("space:never")
        backend.store_message(SPACE, TOPIC, message("two"))
        other.wait("one", "two")
        assert box.texts == ["one"]

    def test_subscribing_again_replaces_the_handler(self, backend: MessagingBackend) -> None:
        """One name has one handler on a topic: the last given."""
        old, new = Box(), Box()
        backend.subscribe(TOPIC, old)
        backend.subscribe(TOPIC, new)
        backend.store_message(SPACE, TOPIC, message("one"))
        new.wait("one")
        assert old.texts == []

    def test_subscribers_are_listed(
        self, backend: MessagingBackend, publisher: MessagingBackend
    ) -> None:
        """A namespace's subscribers are known by topic, over all connections."""
        publisher.subscribe(TOPIC, Box(), subscriber="b")
        backend.subscribe(TOPIC, Box(), subscriber="a")
        backend.subscribe("other:topic", Box(), subscriber="a")
        assert backend.load_subscribers(SPACE) == {TOPIC: ["a", "b"]}

    def test_a_failing_handler_keeps_its_subscription(
        self, backend: MessagingBackend, caplog: pytest.LogCaptureFixture
    ) -> None:
        """An exception in a handler is logged with its traceback, and the next message comes."""
        box = Box()

        def fail_first(got: Message) -> None:
            box(got)
            if len(box.messages) == 1:
                raise ValueError("on purpose")

        backend.subscribe(TOPIC, fail_first)
        backend.store_message(SPACE, TOPIC, message("one"))
        backend.store_message(SPACE, TOPIC, message("two"))
        box.wait("one", "two")
        assert "ValueError: on purpose" in caplog.text

    def test_handlers_may_use_the_backend(self, backend: MessagingBackend) -> None:
        """A handler may publish, subscribe, unsubscribe and read, and what it sends arrives."""
        box, late = Box(), Box()

        def relay(got: Message) -> None:
            backend.subscribe("space:late", late)
            backend.store_message(SPACE, "space:late", message("late"))
            assert backend.get_messages_for_topic(TOPIC)[0] == got
            backend.store_message(SPACE, "space:out", message(f"re {got.payload['text']}"))
            backend.unsubscribe(TOPIC)

        backend.subscribe("space:out", box)
        backend.subscribe(TOPIC, relay)
        backend.store_message(SPACE, TOPIC, message("one"))
        box.wait("re one")
        late.wait("late")

    def test_handlers_may_wait_for_threads_that_use_the_backend(
        self, backend: MessagingBackend
    ) -> None:
        """Threads that a handler starts and waits for can publish and read meanwhile."""
        box = Box()
        backend.subscribe("space:out", box, subscriber="box")

        def work(name: str) -> None:
            for n in range(20):
                backend.store_message(SPACE, "space:out", message(f"{name}{n}"))
            assert backend.get_messages_for_topic("space:out")

        def handler(_: Message) -> None:
            threads = [threading.Thread(target=work, args=(name,)) for name in "abc"]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            backend.store_message(SPACE, "space:out", message("done"))

        backend.subscribe(TOPIC, handler, subscriber="handler")
        backend.store_message(SPACE, TOPIC, message("go"))
        wait_until(lambda: "done" in box.texts)
        assert [t for t in box.texts if t[0] == "b"] == [f"b{n}" for n in range(20)]

    def test_handlers_that_answer_each_other_do_not_nest(self, backend: MessagingBackend) -> None:
        """A long ping-pong between two handlers neither recurses nor overtakes itself."""
        box = Box()

        def ping(got: Message) -> None:
            box(got)
            n = int(got.payload["text"])
            if n < 1500:
                backend.store_message(SPACE, "space:pong", message(str(n + 1)))

        def pong(got: Message) -> None:
            backend.store_message(SPACE, "space:ping", message(got.payload["text"]))

        backend.subscribe("space:ping", ping)
        backend.subscribe("space:pong", pong)
        backend.store_message(SPACE, "space:ping", message("0"))
        wait_until(lambda: len(box.messages) == 1501, timeout=30)
        assert box.texts == [str(n) for n in range(1501)]

    def test_handlers_never_run_at_the_same_time(
        self, backend: MessagingBackend, connect: Connect
    ) -> None:
        """However many publish, the handlers of one connection run one at a time."""
        inside = threading.Lock()
        box = Box()

        def handler(got: Message) -> None:
            assert inside.acquire(blocking=False)
            box(got)
            inside.release()

        backend.subscribe(TOPIC, handler, subscriber="a")
        backend.subscribe(TOPIC, handler, subscriber="b")

        def publish() -> None:
            own = connect()
            for n in range(50):
                own.store_message(SPACE, TOPIC, message(str(n)))

        threads = [threading.Thread(target=publish) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        wait_until(lambda: len(box.messages) == 300)

    def test_serving_delivers_on_the_calling_thread_until_stopped(self, connect: Connect) -> None:
        """`serve` runs handlers where it is called, what waited first, and returns when told."""
        backend, box, threads = connect(), Box(), set()
        with StopSignal() as stop:

            def handler(got: Message) -> None:
                threads.add(threading.current_thread().name)
                box(got)
                if got.payload["text"] == "last":
                    stop.set()

            backend.subscribe(TOPIC, handler)
            backend.store_message(SPACE, TOPIC, message("waited"))
            assert box.messages == []
            backend.store_message(SPACE, TOPIC, message("last"))
            backend.store_message(SPACE, TOPIC, message("unhandled"))
            backend.serve(stop)
        assert box.texts == ["waited", "last"]
        assert threads == {threading.current_thread().name}

    def test_expired_messages_are_gone(self, backend: MessagingBackend) -> None:
        """What outlived its time to live is neither listed nor delivered."""
        box = Box()
        lasting = message("lasting", ttl=60)
        backend.subscribe(TOPIC, box)
        fleeting = message("fleeting", ttl=0.001)
        wait_until(lambda: fleeting.is_expired(_now_ms()))
        backend.store_message(SPACE, TOPIC, fleeting)
        backend.store_message(SPACE, TOPIC, lasting)
        box.wait("lasting")
        assert backend.get_messages_for_topic(TOPIC) == [lasting]
        assert backend.get_next_message_for_topic_since(TOPIC, 0) == lasting
        assert backend.get_messages_by_id(SPACE, [fleeting.id]) == []

    @pytest.mark.parametrize("size", [1, 48_001, 1_000_000])
    def test_payloads_of_any_size(self, backend: MessagingBackend, size: int) -> None:
        """Small and large payloads arrive whole."""
        box = Box()
        backend.subscribe(TOPIC, box)
        backend.store_message(SPACE, TOPIC, message("x" * size))
        wait_until(lambda: box.messages)
        assert len(box.messages[0].payload["text"]) == size

    def test_closing_one_connection_leaves_the_others(self, connect: Connect) -> None:
        """After `cleanup`, which may be called twice, that object refuses; another works on."""
        # A backend that lives in one object overrides this.
        first, second = connect(), connect()
        box = Box()
        second.start()
        second.subscribe(TOPIC, box)
        first.start()
        first.subscribe(TOPIC, Box())
        first.cleanup()
        first.cleanup()
        refuses(first)
        second.store_message(SPACE, TOPIC, message("one"))
        box.wait("one")


def refuses(backend: MessagingBackend) -> None:
    """Check that every method of a backend that was cleaned up says so."""
    calls: Iterator[Callable[[], object]] = iter(
        [
            lambda: backend.store_message(SPACE, TOPIC, message()),
            lambda: backend.get_messages_for_topic(TOPIC),
            lambda: backend.get_messages_for_topic_since(TOPIC, 0),
            lambda: backend.get_next_message_for_topic_since(TOPIC, 0),
            lambda: backend.get_messages_by_id(SPACE, [1]),
            lambda: backend.subscribe(TOPIC, Box()),
            lambda: backend.unsubscribe(TOPIC),
            lambda: backend.load_subscribers(SPACE),
            backend.start,
        ]
    )
    for call in calls:
        with pytest.raises(BackendClosedError):
            call()


def _now_ms() -> float:
    return time.time() * 1000
