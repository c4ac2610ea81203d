"""What every messaging backend promises of large parts of messages."""

from __future__ import annotations

from typing import cast

from rustic_ai.core.messaging.core.attachment import InBody, Part, stored
from rustic_ai.core.messaging.core.dead_letter import DEAD_LETTER_TOPIC, replay_topic
from rustic_ai.core.messaging.core.message import Message
from rustic_ai.core.messaging.core.messaging_backend import MessagingBackend
from rustic_ai.core.messaging.core.messaging_config import MessagingConfig
from rustic_ai.core.messaging.core.messaging_interface import MessagingInterface
from rustic_ai.core.testing.contracts.messaging_backend import (
    SPACE,
    TOPIC,
    Box,
    Connect,
    message,
)
from rustic_ai.core.testing.waiting import wait_until

_SIZES = (0, 1, 1000, 200_001)


class Repeated:
    """A source: one byte many times."""

    def __init__(self, byte: int, size: int) -> None:
        self._byte = byte
        self.nbytes = size

    def write_to(self, target: memoryview) -> None:
        """Write it."""
        target[:] = bytes([self._byte]) * self.nbytes


class _Given:
    """Stands for the configuration of a backend that is there already."""

    def __init__(self, backend: MessagingBackend) -> None:
        self._backend = backend

    def create_backend(self) -> MessagingBackend:
        """Return it."""
        return self._backend


def with_parts(*parts: Part, text: str = "") -> Message:
    """Make a message that has them."""
    made = message(text)
    made.parts = parts
    return made


def contents(got: Message) -> list[bytes]:
    """Return what lies in the parts of a message that has arrived."""
    assert all(isinstance(part, memoryview) and part.readonly for part in got.parts)
    return [bytes(cast("memoryview", part)) for part in got.parts]


def taken(box: Box) -> list[list[bytes]]:
    """Return what lies in the parts of the messages of a box, and let go of them.

    Parts that are held may keep open, beyond `cleanup`, what their backend shares memory by.
    """
    found = [contents(got) for got in box.messages]
    box.messages.clear()
    return found


class LargePartsContract:
    """Inherit beside `MessagingBackendContract`, whose fixtures it uses."""

    def test_parts_arrive_as_they_were_sent(
        self, backend: MessagingBackend, publisher: MessagingBackend
    ) -> None:
        """Of any size and origin, read-only, for every subscriber; later changes are not seen."""
        boxes = Box(), Box()
        for name, box in zip("ab", boxes, strict=True):
            backend.subscribe(TOPIC, box, subscriber=name)
        memory = [bytearray(b"x" * size) for size in _SIZES]
        sent: list[Part] = [memoryview(m) for m in memory]
        sent += [Repeated(ord("y"), size) for size in _SIZES]
        sent += [InBody(memoryview(b"z" * size)) for size in _SIZES]
        publisher.store_message(SPACE, TOPIC, with_parts(*sent))
        for one in memory:
            one[:] = b"!" * len(one)
        expected = [char * size for char in (b"x", b"y", b"z") for size in _SIZES]
        for box in boxes:
            wait_until(lambda box=box: box.messages)  # type: ignore[misc]
            assert taken(box) == [expected]

    def test_parts_stay_while_they_are_held(
        self, backend: MessagingBackend, publisher: MessagingBackend
    ) -> None:
        """What a handler has kept does not change, whatever comes after it."""
        box = Box()
        backend.subscribe(TOPIC, box)
        for n in range(30):
            publisher.send_message(SPACE, TOPIC, with_parts(Repeated(n, 200_001)))
        wait_until(lambda: len(box.messages) == 30)
        assert taken(box) == [[bytes([n]) * 200_001] for n in range(30)]

    def test_parts_outlive_their_backend(self, backend: MessagingBackend, connect: Connect) -> None:
        """What was kept is what it was, when its backend is cleaned up and others send on."""
        kept, others, other = Box(), Box(), connect()
        backend.subscribe(TOPIC, kept, subscriber="a")
        other.store_message(SPACE, TOPIC, with_parts(Repeated(1, 200_001)))
        wait_until(lambda: kept.messages)
        backend.cleanup()
        if other is not backend:
            other.start()
            other.subscribe("space:others", others)
            for n in range(20):
                other.store_message(SPACE, "space:others", with_parts(Repeated(n, 200_001)))
            wait_until(lambda: len(others.messages) == 20)
            assert taken(others) == [[bytes([n]) * 200_001] for n in range(20)]
        assert taken(kept) == [[bytes([1]) * 200_001]]

    def test_handlers_may_pass_parts_on(self, backend: MessagingBackend) -> None:
        """A part that has arrived can be sent as it is, also beside others."""
        box = Box()

        def relay(got: Message) -> None:
            (part,) = got.parts
            backend.send_message(SPACE, "space:out", with_parts(part, Repeated(2, 70_000), part))

        backend.subscribe("space:out", box)
        backend.subscribe(TOPIC, relay)
        backend.store_message(SPACE, TOPIC, with_parts(Repeated(1, 200_001)))
        wait_until(lambda: box.messages)
        part = bytes([1]) * 200_001
        assert taken(box) == [[part, bytes([2]) * 70_000, part]]

    def test_stored_parts_are_history(self, backend: MessagingBackend) -> None:
        """Parts that are `InBody` are read by whoever reads their message, however late."""
        sent = [with_parts(InBody(Repeated(n, size))) for n, size in enumerate(_SIZES)]
        for one in sent:
            backend.store_message(SPACE, TOPIC, one)
        expected = [[bytes([n]) * size] for n, size in enumerate(_SIZES)]
        assert [contents(m) for m in backend.get_messages_for_topic(TOPIC)] == expected
        later = backend.get_messages_for_topic_since(TOPIC, sent[1].id)
        assert [contents(m) for m in later] == expected[2:]
        assert contents(backend.get_messages_by_id(SPACE, [sent[3].id])[0]) == expected[3]
        box = Box()
        backend.subscribe(TOPIC, box, from_start=True)
        wait_until(lambda: len(box.messages) == len(sent))
        assert taken(box) == expected

    def test_dead_letters_keep_their_parts(self, backend: MessagingBackend) -> None:
        """Whoever lists a dead letter, or gets it once more, gets the parts of the message."""
        messaging = MessagingInterface(SPACE, cast("MessagingConfig", _Given(backend)))
        box, again = Box(), Box()
        messaging.subscribe("topic", box, subscriber="a")
        messaging.subscribe(replay_topic("a"), again, subscriber="a")
        messaging.publish(with_parts(Repeated(1, 200_001), memoryview(b"small"), text="t"))
        wait_until(lambda: box.messages)
        messaging.bury(box.messages.pop(), "a", "on purpose", 1)
        wait_until(lambda: messaging.get_messages(DEAD_LETTER_TOPIC))
        (dead,) = messaging.get_messages(DEAD_LETTER_TOPIC)
        expected = [bytes([1]) * 200_001, b"small"]
        assert contents(dead) == expected
        messaging.replay(dead)
        wait_until(lambda: again.messages)
        assert again.messages[0].topic_published_to == "topic"
        assert taken(again) == [expected]

    def test_memory_to_send_from(
        self, backend: MessagingBackend, publisher: MessagingBackend
    ) -> None:
        """`allocate` gives writable bytes, exactly so many, that are sent like any others."""
        box = Box()
        backend.subscribe(TOPIC, box)
        memory = [publisher.allocate(size) for size in _SIZES]
        for n, one in enumerate(memory):
            one[:] = bytes([n]) * one.nbytes
        publisher.store_message(SPACE, TOPIC, with_parts(*memory))
        publisher.store_message(SPACE, TOPIC, with_parts(*stored(memory)))
        wait_until(lambda: len(box.messages) == 2)
        expected = [bytes([n]) * size for n, size in enumerate(_SIZES)]
        assert taken(box) == [expected, expected]
