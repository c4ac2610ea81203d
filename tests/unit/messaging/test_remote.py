"""What backends over a foreign store have in common, over the smallest store there is."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import pytest

from rustic_ai.core.errors import BackendUnavailableError, BackPressureError
from rustic_ai.core.messaging.backend.remote import Output
from rustic_ai.core.messaging.backend.remote import sender as sender_module
from rustic_ai.core.messaging.backend.remote.sender import Sender
from rustic_ai.core.messaging.core.messaging_backend import MessagingBackend
from rustic_ai.core.testing.contracts.durable_messaging import DurableMessagingContract
from rustic_ai.core.testing.contracts.large_parts import LargePartsContract
from rustic_ai.core.testing.contracts.messaging_backend import (
    SPACE,
    TOPIC,
    Box,
    Connect,
    MessagingBackendContract,
    message,
)
from tests.unit.messaging.shelf import Shelf, ShelfBackend


class TestShelf(MessagingBackendContract, DurableMessagingContract, LargePartsContract):
    """The contracts hold on whatever keeps messages and positions."""

    @pytest.fixture
    def connect(self) -> Iterator[Connect]:
        shelf = Shelf()
        opened: list[MessagingBackend] = []

        def connect() -> MessagingBackend:
            opened.append(ShelfBackend(shelf))
            return opened[-1]

        yield connect
        for backend in reversed(opened):
            backend.cleanup()


class Broken(ShelfBackend):
    """Its store takes nothing."""

    def _append(self, outputs: Sequence[Output]) -> None:
        raise BackendUnavailableError(address="shelf", reason=f"{len(outputs)} do not fit")


def test_a_store_that_is_gone_is_told_at_the_next_call() -> None:
    """Who waits gets the error at once, who does not gets it later, and so does who serves."""
    backend = Broken(Shelf())
    backend.start()
    with pytest.raises(BackendUnavailableError, match="1 do not fit"):
        backend.store_message(SPACE, TOPIC, message())
    backend.send_message(SPACE, TOPIC, message())
    backend.cleanup()
    other = Broken(Shelf())
    other.send_message(SPACE, TOPIC, message())
    other._sender.close(5.0)
    for _ in range(2):
        with pytest.raises(BackendUnavailableError, match="1 do not fit"):
            other.get_messages_for_topic(TOPIC)
    other.cleanup()


def test_what_was_settled_is_settled_once() -> None:
    """A step carries acknowledgements and outputs; who comes back goes on after them."""
    shelf, box, again = Shelf(), Box(), Box()
    backend = ShelfBackend(shelf)
    backend.start()
    backend.subscribe("space:out", box)
    backend.subscribe(
        TOPIC,
        lambda m: backend.send_message(SPACE, "space:out", m),
        subscriber="relay",
        durable=True,
    )
    for text in "abc":
        backend.store_message(SPACE, TOPIC, message(text))
    box.wait("a", "b", "c")
    backend.cleanup()
    assert shelf.log(TOPIC).acked == {"relay": 3}
    other = ShelfBackend(shelf)
    other.start()
    other.subscribe(TOPIC, again, subscriber="relay", durable=True)
    other.store_message(SPACE, TOPIC, message("d"))
    again.wait("d")
    other.cleanup()


def output(text: bytes) -> Output:
    return Output(SPACE, TOPIC, 1, 0, text)


def test_messages_gather_while_the_store_is_busy() -> None:
    """They are handed over in their order, many at a time; waiting for one means it is stored."""
    batches: list[list[bytes]] = []
    busy, free = threading.Event(), threading.Event()

    def append(outputs: Sequence[Output]) -> None:
        batches.append([o.record for o in outputs])
        busy.set()
        assert free.wait(10)

    sender = Sender("sender", append, lambda _: None)
    sender.put(output(b"0"))
    assert busy.wait(10)
    last = [sender.put(output(str(n).encode()), awaited=n == 9) for n in range(1, 10)][-1]
    free.set()
    sender.wait(last)
    sender.close(5.0)
    assert batches == [[b"0"], [str(n).encode() for n in range(1, 10)]]


def test_a_publisher_does_not_wait_for_ever_for_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the store takes nothing, a publisher is told so; closing then says what is left."""
    monkeypatch.setattr(sender_module, "WAIT_FOR_ROOM", 0.05)
    monkeypatch.setattr(sender_module, "_MOST", 2)
    stuck = threading.Event()
    sender = Sender("sender", lambda _: stuck.wait(10) and None, lambda _: None)
    with pytest.raises(BackPressureError, match=r"taken no message for 0\.05 s"):
        for _ in range(6):
            sender.put(output(b""))
    stuck.set()
    sender.close(5.0)
