"""Large parts between real processes: intact, not copied, and back in the pool when not needed."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rustic_ai.core.errors import BackPressureError, MessageTooLargeError
from rustic_ai.core.messaging.backend.embedded_backend import (
    EmbeddedMessagingBackend,
    EmbeddedServer,
)
from rustic_ai.core.messaging.backend.embedded_backend.core import Limits
from rustic_ai.core.messaging.backend.embedded_backend.store import Bounds
from rustic_ai.core.messaging.core.attachment import InBody, LostPart
from rustic_ai.core.messaging.core.message import Message
from rustic_ai.core.testing.waiting import wait_until
from tests.chaos import ServerProgram
from tests.shared import (
    LARGE,
    SPACE,
    TOPIC,
    Helper,
    fill,
    is_intact,
    large,
    memory_files,
    pattern,
    pool_of,
    slots_of,
)

KB, MB = 1 << 10, 1 << 20
Serve = Callable[..., EmbeddedServer]
Connect = Callable[..., EmbeddedMessagingBackend]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start servers in this process."""
    servers: list[EmbeddedServer] = []

    def serve(**settings: Any) -> EmbeddedServer:
        servers.append(EmbeddedServer(port=0, **settings))
        servers[-1].start_thread()
        return servers[-1]

    yield serve
    for server in servers:
        server.stop_thread()


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Connect to them; and see at the end that nothing of shared memory is left."""
    opened: list[EmbeddedMessagingBackend] = []

    def connect(port: int, **settings: Any) -> EmbeddedMessagingBackend:
        settings = {"auto_start_server": False, "reconnect_timeout": 10.0, **settings}
        opened.append(EmbeddedMessagingBackend(port=port, **settings))
        return opened[-1]

    yield connect
    for backend in reversed(opened):
        backend.cleanup()
    opened.clear()
    gc.collect()  # what handlers have kept
    wait_until(lambda: not memory_files())


@pytest.mark.parametrize("transport", ["unix", "tcp"])
def test_every_size_arrives_intact(serve: Serve, connect: Connect, transport: Any) -> None:
    """Between processes, shared where it pays and can be, inline elsewhere."""
    port = serve().port
    sender = connect(port, transport=transport)
    reader = Helper("receive", port, 0)
    sizes = [1, 128 * KB - 1, 128 * KB, MB, 16 * MB + 1, 100 * MB]
    for number, size in enumerate(sizes):
        sender.send_message(SPACE, TOPIC, large(number, pattern(number, size), pattern(number, 9)))
        assert bool(slots_of(sender)["segments"]) == (transport == "unix" and size >= 128 * KB)
        seen = reader.tell("facts", number + 1)
        assert (seen["seen"], seen["wrong"], seen["lost"], seen["writable"]) == (
            number + 1,
            0,
            0,
            0,
        )
    wait_until(lambda: pool_of(sender) == 0)
    reader.close()


def test_more_receivers_need_no_more_memory(serve: Serve, connect: Connect) -> None:
    """All map the same file, and nobody has one of its own."""
    port = serve().port
    sender = connect(port)
    readers = [Helper("receive", port, 1) for _ in range(3)]
    sender.send_message(SPACE, TOPIC, large(1, pattern(1, 8 * MB)))
    for reader in readers:
        assert reader.tell("facts", 1)["held"] == 1
    (size,) = memory_files().values()
    assert size <= 9 * MB
    for reader in readers:
        assert memory_files(reader.process.pid).keys() == memory_files().keys()
        reader.close()
    wait_until(lambda: pool_of(sender) == 0)


def test_what_is_held_stays_as_it_is(serve: Serve, connect: Connect) -> None:
    """While the sender goes on, after it has ended, after the receiver's backend was closed."""
    port = serve().port
    sender = connect(port, shared_memory=16 * MB)
    reader = Helper("receive", port, 8)
    for number in range(3000):
        sender.send_message(SPACE, TOPIC, large(number, pattern(number, LARGE)))
    seen = reader.tell("facts", 3000)
    assert (seen["wrong"], seen["lost"], seen["changed"]) == (0, 0, 0)
    assert seen["held"] == 8
    wait_until(lambda: slots_of(sender)["held_slots"] <= 8)
    sender.cleanup()
    other = connect(port)
    for number in range(20):
        other.send_message(SPACE, "shared:u", large(number, pattern(number, LARGE)))
    assert reader.tell("clean")["changed"] == 0
    assert reader.tell("fork")["changed"] == 0
    assert reader.tell("drop")["held"] == 0
    wait_until(lambda: slots_of(other)["held_slots"] == 0)
    reader.close()


def test_the_end_of_a_held_part_is_told_by_a_client_that_is_idle(
    serve: Serve, connect: Connect
) -> None:
    """Nothing else happens; its slot is free soon."""
    port = serve().port
    sender = connect(port)
    reader = Helper("receive", port, 1)
    sender.send_message(SPACE, TOPIC, large(1, pattern(1, MB)))
    assert reader.tell("facts", 1)["held"] == 1
    wait_until(lambda: slots_of(sender)["held_slots"] == 1)
    reader.tell("drop")
    wait_until(lambda: pool_of(sender) == 0)
    reader.close()


def test_beyond_the_limit_parts_travel_inline(serve: Serve, connect: Connect) -> None:
    """Nobody reads yet: what finds no slot stands in its message; none without shared memory."""
    port = serve().port
    sender, without = connect(port, shared_memory=2 * MB), connect(port, shared_memory=0)
    sender.declare(SPACE, TOPIC, "late", from_start=True)
    for number in range(12):
        by = without if number % 3 == 2 else sender
        by.store_message(SPACE, TOPIC, large(number, pattern(number, LARGE)))
    assert slots_of(sender)["slots_in_use"] == 8
    assert sum(memory_files().values()) <= 2 * MB
    reader = Helper("receive", port, 0, "late")
    seen = reader.tell("facts", 12)
    assert (seen["wrong"], seen["lost"]) == (0, 0)
    wait_until(lambda: pool_of(sender) == 0)
    reader.close()


def test_history(serve: Serve, connect: Connect) -> None:
    """What somebody still waits for can be read, and kept; what is acknowledged is lost."""
    backend = connect(serve().port)
    backend.store_message(SPACE, TOPIC, large(1, pattern(1, LARGE)))
    backend.declare(SPACE, TOPIC, "late")
    backend.store_message(SPACE, TOPIC, large(2, pattern(2, LARGE)))
    first, second = backend.get_messages_for_topic(TOPIC)
    assert isinstance(first.parts[0], LostPart)
    assert isinstance(second.parts[0], memoryview)
    backend.disown(SPACE, "late")
    for number in range(3, 40):
        backend.store_message(SPACE, TOPIC, large(number, pattern(number, LARGE)))
    assert is_intact(second.parts[0], 2)


def test_an_array_that_is_filled_in_place(serve: Serve, connect: Connect) -> None:
    """It is sent without a copy, to two topics, too; one that is not sent gives its slot back."""
    port = serve().port
    sender = connect(port)
    reader = Helper("receive", port, 1)
    array = fill(np.frombuffer(sender.allocate(MB), np.uint8), 1)
    assert pool_of(sender) == 1
    for topic in (TOPIC, "shared:u"):
        sender.send_message(SPACE, topic, large(1, memoryview(array)))
    assert reader.tell("facts", 1)["wrong"] == 0
    assert pool_of(sender) == 1
    reader.tell("drop")
    del array
    wait_until(lambda: pool_of(sender) == 0)
    unsent = sender.allocate(MB)
    assert pool_of(sender) == 1
    del unsent
    assert pool_of(sender) == 0
    reader.close()


def test_what_waits_in_a_step_is_not_overwritten(serve: Serve, connect: Connect) -> None:
    """A handler sends one array twice, once at once; that one is released before the step ends."""
    port = serve().port
    backend, trigger = connect(port, shared_memory=2 * MB), connect(port)
    in_use: list[int] = []
    got: list[Message] = []

    def handle(_: Message) -> None:
        array = fill(np.frombuffer(backend.allocate(LARGE), np.uint8), 7)
        backend.send_message(SPACE, "shared:out", large(7, memoryview(array)))
        backend.send_message(SPACE, "shared:none", large(7, memoryview(array)), now=True)
        del array
        wait_until(lambda: backend.get_statistics()["topics"]["shared:none"]["messages_in"] == 1)
        for number in range(40):  # each could get its slot
            backend.send_message(
                SPACE, "shared:none", large(number, pattern(number, LARGE)), now=True
            )
        in_use.append(pool_of(backend))

    trigger.subscribe("shared:out", got.append, subscriber="out")
    backend.subscribe("shared:in", handle, subscriber="in")
    trigger.start()
    backend.start()
    trigger.send_message(SPACE, "shared:in", large(0))
    wait_until(lambda: got)
    assert in_use[0] >= 1, "the slot of the step is not free"
    (part,) = got[0].parts
    assert isinstance(part, memoryview)
    assert is_intact(part, 7)
    got.clear()


def test_what_is_not_sent_gives_its_slot_back(serve: Serve, connect: Connect) -> None:
    """Too large, refused, or wrong: the error rises, the slot does not stay."""
    server = serve(
        limits=Limits(max_frame=MB, max_payload=4 * MB),
        bounds=Bounds(pending=64 * KB, overflow="error"),
    )
    sender = connect(server.port)
    with pytest.raises(MessageTooLargeError):
        sender.store_message(SPACE, TOPIC, large(1, pattern(1, MB), InBody(pattern(1, 8 * MB))))
    assert pool_of(sender) == 0
    sender.declare(SPACE, TOPIC, "nobody", from_start=True)
    sender.store_message(SPACE, TOPIC, large(2, InBody(pattern(1, 60 * KB))))
    with pytest.raises(BackPressureError):
        sender.store_message(SPACE, TOPIC, large(3, pattern(3, MB), InBody(pattern(1, 9 * KB))))
    wait_until(lambda: pool_of(sender) == 0)


def test_what_is_dropped_gives_its_slot_back(serve: Serve, connect: Connect) -> None:
    """With 'drop_oldest' a subscriber gets the latest, and all slots but theirs are free."""
    bounds = Bounds(pending=2 * KB, overflow="drop_oldest")
    sender = connect(serve(bounds=bounds).port)
    sender.declare(SPACE, TOPIC, "late", from_start=True)
    for number in range(100):
        sender.store_message(SPACE, TOPIC, large(number, pattern(number, LARGE)))
    got: list[Message] = []
    sender.subscribe(TOPIC, got.append, subscriber="late", durable=True)
    sender.start()
    wait_until(lambda: got and got[-1].payload["n"] == 99)
    for message in got:
        (part,) = message.parts
        assert isinstance(part, memoryview)
        assert is_intact(part, message.payload["n"])
    got.clear()
    del message, part
    wait_until(lambda: pool_of(sender) == 0)


def test_many_threads_publish(serve: Serve, connect: Connect) -> None:
    """All that they send arrives intact, within one small pool."""
    port = serve().port
    sender = connect(port, shared_memory=4 * MB)
    reader = Helper("receive", port, 3)

    def publish(first: int) -> None:
        for number in range(first, first + 50):
            sender.send_message(SPACE, TOPIC, large(number, pattern(number, LARGE)))

    threads = [threading.Thread(target=publish, args=(1000 * n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seen = reader.tell("facts", 300)
    assert (seen["seen"], seen["wrong"], seen["lost"], seen["changed"]) == (300, 0, 0, 0)
    reader.close()
    wait_until(lambda: pool_of(sender) == 0)


@pytest.mark.parametrize("lives", [True, False])
def test_a_journal(free_port: int, connect: Connect, tmp_path: Path, lives: bool) -> None:
    """What stands in the body outlives server and producer, the rest its server alone."""
    server = ServerProgram(free_port, {"data_dir": str(tmp_path)})
    sender = connect(free_port)
    sender.declare(SPACE, TOPIC, "late", from_start=True)
    sender.store_message(SPACE, TOPIC, large(1, pattern(1, MB), InBody(pattern(1, MB))))
    if not lives:
        sender.cleanup()
    server.kill()
    reader = connect(free_port)
    got: list[Message] = []
    reader.subscribe(TOPIC, got.append, subscriber="late", durable=True)
    reader.start()
    if lives:
        wait_until(lambda: pool_of(sender) == 1)  # it comes back when it has something to say
    (message,) = wait_until(lambda: got)
    shared, stored = message.parts
    assert isinstance(stored, memoryview)
    assert is_intact(stored, 1)
    if lives:
        assert isinstance(shared, memoryview)
        assert is_intact(shared, 1)
        for number in range(2, 100):
            sender.store_message(SPACE, TOPIC, large(number, pattern(number, MB)))
        assert is_intact(shared, 1)
    else:
        assert isinstance(shared, LostPart)
    got.clear()
    reader.cleanup()
    sender.cleanup()
    server.close()
