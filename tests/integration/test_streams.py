"""Clients that send one small message after the other are read at intervals."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from rustic_ai.core.messaging.backend.embedded_backend import EmbeddedMessagingBackend
from rustic_ai.core.messaging.backend.embedded_backend.shared import ring
from rustic_ai.core.messaging.core.message import Message
from rustic_ai.core.testing.contracts.messaging_backend import SPACE, TOPIC, Box, message
from rustic_ai.core.testing.waiting import wait_until

Join = Callable[[EmbeddedMessagingBackend], EmbeddedMessagingBackend]


@pytest.fixture
def owner() -> Iterator[EmbeddedMessagingBackend]:
    """Give a connection to a server in a process of its own, which ends with it."""
    backend = EmbeddedMessagingBackend(port=0)
    yield backend
    backend.cleanup()


@pytest.fixture
def join(owner: EmbeddedMessagingBackend) -> Iterator[Join]:
    """Make more connections to it; they are closed afterwards."""
    opened: list[EmbeddedMessagingBackend] = []

    def join(owner: EmbeddedMessagingBackend) -> EmbeddedMessagingBackend:
        opened.append(EmbeddedMessagingBackend(**owner.settings_for_agents()))
        return opened[-1]

    yield join
    for backend in opened:
        backend.cleanup()


def facts(backend: EmbeddedMessagingBackend) -> dict[str, Any]:
    found: dict[str, Any] = backend.get_statistics()["server"]
    return found


def test_a_stream_is_read_at_intervals(owner: EmbeddedMessagingBackend, join: Join) -> None:
    """It loses nothing, others do not wait for it, and afterwards it is listened to again."""
    publisher, other = join(owner), join(owner)
    box, enough = Box(), threading.Event()
    messages = [message(str(n)) for n in range(1_000)]
    rounds = itertools.count()
    other.subscribe(TOPIC, box)
    other.start()

    def stream() -> None:
        while not enough.is_set():
            next(rounds)
            for one in messages:
                publisher.send_message(SPACE, TOPIC, one)

    thread = threading.Thread(target=stream)
    thread.start()
    try:
        wait_until(lambda: facts(owner)["streams"])
        owner.store_message(SPACE, "another", message("in between"))
    finally:
        enough.set()
        thread.join()
    wait_until(lambda: facts(owner)["streams"] == 0)
    publisher.store_message(SPACE, TOPIC, message("afterwards"))
    wait_until(lambda: box.messages[-1].payload["text"] == "afterwards")
    assert box.texts == [m.payload["text"] for m in messages] * next(rounds) + ["afterwards"]


def test_a_stream_may_end_with_its_connection(owner: EmbeddedMessagingBackend, join: Join) -> None:
    """What it has sent is there; the server forgets it."""
    publisher, one = join(owner), message("x")
    while not facts(owner)["streams"]:
        for _ in range(1_000):
            publisher.send_message(SPACE, TOPIC, one)
    publisher.cleanup()
    wait_until(lambda: facts(owner)["connections"] == 1)
    assert facts(owner)["streams"] == 0
    assert owner.get_statistics()["topics"][TOPIC]["messages_in"] % 1_000 == 0


@pytest.mark.skipif(not ring.SUPPORTED, reason="needs memory files, and x86")
def test_a_stream_goes_through_a_ring(owner: EmbeddedMessagingBackend, join: Join) -> None:
    """What goes through it and what goes beside it stays in order, also from two threads."""
    publisher = join(owner)
    numbers = itertools.count()

    def burst() -> None:
        for number in itertools.islice(numbers, 1_000):
            publisher.send_message(SPACE, TOPIC, message(str(number)))

    while not facts(owner)["rings"]:
        burst()
    other = threading.Thread(
        target=lambda: [
            publisher.send_message(SPACE, "another", message(f"{n} " + "x" * 1_000))
            for n in range(20_000)
        ]
    )
    other.start()
    for _ in range(20):
        burst()
        # Asked on the socket, and so after what stands in the ring.
        last = publisher.get_messages_for_topic(TOPIC)[-1]
        burst_end = int(last.payload["text"]) + 1
        assert burst_end == next(numbers)
        publisher.send_message(SPACE, TOPIC, message(str(burst_end)))
    other.join()
    wait_until(lambda: facts(owner)["streams"] == 0)
    publisher.store_message(SPACE, TOPIC, message("afterwards"))
    found = [m.payload["text"] for m in owner.get_messages_for_topic(TOPIC)]
    assert found == [*map(str, range(next(numbers))), "afterwards"]
    found = [m.payload["text"].split()[0] for m in owner.get_messages_for_topic("another")]
    assert found == [*map(str, range(20_000))]
    publisher.cleanup()
    wait_until(lambda: facts(owner)["rings"] == 0)


def test_who_answers_messages_is_no_stream_and_needs_no_ring(
    owner: EmbeddedMessagingBackend, join: Join
) -> None:
    """However many it answers: the way through a ring would be a longer one for each of them."""
    one, other = join(owner), join(owner)
    done, trips = threading.Event(), itertools.count(1)
    ball = message("to and fro")

    def serve_again(_: Message) -> None:
        if next(trips) < 4_000:
            one.send_message(SPACE, "forth", ball)
        else:
            done.set()

    one.subscribe("back", serve_again)
    other.subscribe("forth", lambda _: other.send_message(SPACE, "back", ball))
    one.start()
    other.start()
    owner.store_message(SPACE, "forth", ball)
    assert done.wait(20)
    assert (facts(owner)["rings"], facts(owner)["streams"]) == (0, 0)
