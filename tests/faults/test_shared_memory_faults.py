"""What is killed, stopped, or sends garbage where memory is shared: nothing is left, or wrong.

RUSTIC_CHAOS_SECONDS=60 makes the last test longer; RUSTIC_CHAOS_SEED repeats its choices.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import random
import resource
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from rustic_ai.core.messaging.backend.embedded_backend import EmbeddedMessagingBackend
from rustic_ai.core.messaging.backend.embedded_backend.protocol import (
    Op,
    pack,
)
from rustic_ai.core.messaging.backend.embedded_backend.shared.segment import make_segment
from rustic_ai.core.messaging.core.message import Message
from rustic_ai.core.testing.waiting import wait_until
from tests.chaos import ServerProgram, seeded
from tests.shared import (
    LARGE,
    SPACE,
    TOPIC,
    Helper,
    is_intact,
    large,
    memory_files,
    pattern,
    pool_of,
    slots_of,
    wait_until_free,
)
from tests.strangers import Stranger

SECONDS = float(os.environ.get("RUSTIC_CHAOS_SECONDS", "2"))
Connect = Callable[..., EmbeddedMessagingBackend]


@pytest.fixture
def server(free_port: int) -> Iterator[ServerProgram]:
    """Run a server that can be killed, in a process of its own."""
    program = ServerProgram(free_port, {})
    yield program
    program.close()


@pytest.fixture
def connect(free_port: int, server: ServerProgram) -> Iterator[Connect]:
    """Connect to it; and see at the end that it has as little as at the beginning."""
    opened: list[EmbeddedMessagingBackend] = []
    before = descriptors_of(server)

    def connect(**settings: Any) -> EmbeddedMessagingBackend:
        opened.append(
            EmbeddedMessagingBackend(
                port=free_port, auto_start_server=False, reconnect_timeout=20, **settings
            )
        )
        return opened[-1]

    yield connect
    for backend in opened:
        backend.cleanup()
    opened.clear()
    gc.collect()  # what handlers have kept
    wait_until(lambda: not memory_files())
    wait_until(lambda: descriptors_of(server) <= before)


def descriptors_of(server: ServerProgram) -> int:
    """Return how many descriptors a server has."""
    return psutil.Process(server.process.pid).num_fds()


def send(backend: EmbeddedMessagingBackend, count: int, first: int = 0) -> None:
    """Send numbered parts."""
    for number in range(first, first + count):
        backend.send_message(SPACE, TOPIC, large(number, pattern(number, LARGE)))


def test_a_killed_consumer(connect: Connect, free_port: int) -> None:
    """What it held is free again."""
    sender = connect()
    reader = Helper("receive", free_port, 5)
    send(sender, 20)
    assert reader.tell("facts", 20)["held"] == 5
    wait_until(lambda: slots_of(sender)["held_slots"] == 5)
    send(sender, 20)
    reader.kill()
    wait_until(lambda: slots_of(sender)["slots_in_use"] == 0)
    wait_until(lambda: pool_of(sender) == 0)


def test_a_killed_producer(connect: Connect, free_port: int) -> None:
    """What it had sent is delivered; its memory goes with the last acknowledgement."""
    observer = connect()
    observer.declare(SPACE, TOPIC, "late", from_start=True)
    producer = Helper("send", free_port, LARGE)
    wait_until(lambda: observer.get_statistics()["topics"][TOPIC]["messages_in"] > 20)
    producer.kill()
    wait_until(lambda: slots_of(observer)["segments"] > 0)
    end = observer.get_statistics()["topics"][TOPIC]["messages_in"]
    reader = Helper("receive", free_port, 1, "late")
    seen = reader.tell("facts", end)
    assert (seen["wrong"], seen["lost"]) == (0, 0)
    assert seen["seen"] >= end
    reader.tell("drop")
    wait_until(lambda: slots_of(observer) == {"segments": 0, "slots_in_use": 0, "held_slots": 0})
    wait_until(lambda: not memory_files())
    reader.close()


@pytest.mark.parametrize("journal", [True, False])
def test_a_killed_server(free_port: int, tmp_path: Path, journal: bool, connect: Connect) -> None:
    """What receivers hold stays as it is; what is sent to the next one arrives; memory goes.

    Without a journal, what was on its way is lost, and says so.
    """
    del connect
    port = free_port + 1 if free_port < 60_000 else free_port - 1
    server = ServerProgram(port, {"data_dir": str(tmp_path)} if journal else {})
    sender = EmbeddedMessagingBackend(port=port, auto_start_server=False, reconnect_timeout=20)
    reader = Helper("receive", port, 6, "reader")
    for round_ in range(3):
        send(sender, 40, 100 * round_)
        wait_until(lambda: reader.tell("facts")["held"] > 0)
        server.kill()
        sender.store_message(SPACE, TOPIC, large(7, pattern(7, LARGE)))
    send(sender, 200, 1000)
    wait_until(lambda: reader.tell("facts")["last"] == 1199)
    seen = reader.tell("facts")
    assert (seen["wrong"], seen["changed"]) == (0, 0)
    assert seen["last_lost"] < 1000
    if journal:
        assert seen["lost"] == 0
        assert seen["seen"] >= 3 * 41 + 200
    reader.tell("drop")
    wait_until_free(sender, reader)
    reader.close()
    sender.cleanup()
    server.close()


def test_a_stopped_consumer(connect: Connect, free_port: int) -> None:
    """It costs others no more than the pool; when it goes on, it gets everything."""
    sender = connect(shared_memory=4 << 20)
    reader = Helper("receive", free_port, 0)
    reader.process.send_signal(signal.SIGSTOP)
    send(sender, 60)
    assert sum(memory_files().values()) <= 4 << 20
    reader.process.send_signal(signal.SIGCONT)
    seen = reader.tell("facts", 60)
    assert (seen["seen"], seen["wrong"], seen["lost"]) == (60, 0, 0)
    wait_until(lambda: pool_of(sender) == 0)
    reader.close()


def test_a_forked_copy(connect: Connect, free_port: int) -> None:
    """It sees what its original holds, and its end is nobody's business."""
    sender = connect()
    reader = Helper("receive", free_port, 3)
    send(sender, 10)
    reader.tell("facts", 10)
    reader.tell("fork")
    send(sender, 100, 10)
    seen = reader.tell("facts", 110)
    assert (seen["wrong"], seen["lost"], seen["changed"]) == (0, 0, 0)
    reader.close()
    wait_until(lambda: pool_of(sender) == 0)


# Garbage


@pytest.fixture
def stranger(free_port: int, connect: Connect) -> Iterator[Stranger]:
    """Give one; a healthy client works on afterwards."""
    healthy = connect()
    one = Stranger(free_port)
    yield one
    one.close()
    healthy.declare(SPACE, TOPIC, "late")
    healthy.store_message(SPACE, TOPIC, large(1, pattern(1, LARGE)))
    (message,) = healthy.get_messages_for_topic(TOPIC)
    (part,) = message.parts
    assert isinstance(part, memoryview)
    assert is_intact(part, 1)
    assert slots_of(healthy)["segments"] == 1
    healthy.disown(SPACE, "late")


@pytest.mark.parametrize("kind", ["not sealed", "no memory file", "a pipe"])
def test_a_descriptor_that_could_harm_a_reader(stranger: Stranger, kind: str) -> None:
    """It is refused, and closed."""
    assert stranger.greet(Op.CHANNEL) == Op.CHANNEL
    pipe = os.pipe()
    fds = {
        "not sealed": os.memfd_create("rustic-test", os.MFD_ALLOW_SEALING),
        "no memory file": os.open("/dev/null", os.O_RDONLY),
        "a pipe": pipe[0],
    }
    socket.send_fds(stranger.channel, [pack(Op.OFFER, id=5)], [fds[kind]])
    assert stranger.hear(stranger.channel) == Op.ERROR
    for fd in {*fds.values(), *pipe}:
        os.close(fd)


def test_garbage_on_a_channel(stranger: Stranger) -> None:
    """It costs the channel alone, and each descriptor is closed."""
    fd, mapping = make_segment("rustic-test", 4096)
    for seed in range(20):
        rng = random.Random(seed)
        assert stranger.greet(Op.CHANNEL) == Op.CHANNEL
        with contextlib.suppress(OSError):  # it was closed meanwhile
            for _ in range(30):
                op = rng.choice([Op.OFFER, Op.OFFER, Op.WANT, Op.WANT, Op.HELLO, Op.FORGET])
                data = pack(op, rng.randbytes(rng.choice([0, 0, 0, 5])), id=rng.randrange(4))
                socket.send_fds(stranger.channel, [data], [fd] * rng.randrange(4))
        stranger.channel.close()
        stranger.connect()
    os.close(fd)
    del mapping


def test_a_channel_of_nobody(stranger: Stranger) -> None:
    """A client that is not here has none."""
    assert stranger.greet(Op.CHANNEL, 12345) == Op.ERROR


def test_a_second_channel_takes_the_place_of_the_first(
    stranger: Stranger, server: ServerProgram
) -> None:
    """The end of the first is seen, and the server does not spin on it."""
    assert stranger.greet(Op.CHANNEL) == Op.CHANNEL
    first = stranger.channel
    stranger.connect()
    assert stranger.greet(Op.CHANNEL) == Op.CHANNEL
    first.close()
    stranger.channel.sendall(pack(Op.WANT, id=1))
    assert stranger.hear(stranger.channel) == Op.WANT
    before = psutil.Process(server.process.pid).cpu_times()
    with pytest.raises(TimeoutError):
        stranger.channel.settimeout(0.5)
        stranger.channel.recv(1)
    assert psutil.Process(server.process.pid).cpu_times().user - before.user < 0.3


# Where something is short


def test_no_descriptor_is_left(connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
    """A producer sends inline, and goes on in shared memory afterwards."""
    sender = connect()
    got: list[Message] = []
    sender.subscribe(TOPIC, got.append, subscriber="s")
    sender.start()
    send(sender, 1)
    wait_until(lambda: len(got) == 1)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    held = [sender.allocate(1 << 20) for _ in range(8)]
    with caplog.at_level(logging.CRITICAL):
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            sender.send_message(SPACE, TOPIC, large(1, pattern(1, 9 << 20)))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    wait_until(lambda: len(got) == 2)
    (part,) = got[1].parts
    assert isinstance(part, memoryview)
    assert is_intact(part, 1)
    held.clear()
    got.clear()
    del part
    wait_until(lambda: pool_of(sender) == 0)


def test_the_server_has_no_descriptor_left(connect: Connect, server: ServerProgram) -> None:
    """It says so; the part travels inline, and nobody loses a connection."""
    sender, reader = connect(), connect()
    got: list[Message] = []
    reader.subscribe(TOPIC, got.append, subscriber="s")
    reader.start()
    send(sender, 1)
    wait_until(lambda: len(got) == 1)
    pid = server.process.pid
    limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, limits[1]))
    sender.send_message(SPACE, TOPIC, large(1, pattern(1, 9 << 20)))
    wait_until(lambda: len(got) == 2)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
    sender.send_message(SPACE, TOPIC, large(2, pattern(2, 9 << 20)))
    wait_until(lambda: len(got) == 3)
    for number, message in enumerate(got):
        (part,) = message.parts
        assert isinstance(part, memoryview)
        assert is_intact(part, number)
    assert slots_of(sender)["segments"] == 2
    got.clear()
    del part, message


# All at once


@pytest.mark.timeout(90 + SECONDS)
@pytest.mark.parametrize("journal", [True, False])
def test_chaos(free_port: int, tmp_path: Path, journal: bool) -> None:
    """`kill -9` of producers, consumers and server: contents are right, and nothing is left."""
    seed = int(os.environ.get("RUSTIC_CHAOS_SEED", random.SystemRandom().getrandbits(32)))
    rng, kills = random.Random(seed), dict.fromkeys(("sender", "reader", "server"), 0)
    bounds = {"pending": 1 << 20, "topic_count": 2000}
    settings = {"bounds": bounds, **({"data_dir": str(tmp_path)} if journal else {})}
    server = ServerProgram(free_port, settings)
    readers = [Helper("receive", free_port, keep, f"r{keep}") for keep in (0, 4)]
    senders = [Helper("send", free_port, size) for size in (LARGE, 3 * LARGE)]
    with seeded(seed, kills):
        checked = 0
        deadline = time.monotonic() + SECONDS / 2  # there are two of this test
        while time.monotonic() < deadline:
            index, who = rng.randrange(2), rng.choice(list(kills))
            goal = readers[1 - index].tell("facts")["seen"] + rng.randrange(1, 60)
            readers[1 - index].tell("facts", goal)
            kills[who] += 1
            for reader in readers:
                seen = reader.tell("facts")
                assert (seen["wrong"], seen["changed"], seen["writable"]) == (0, 0, 0)
            if who == "server":
                server.kill()
            elif who == "sender":
                senders[index].kill()
                senders[index] = Helper("send", free_port, LARGE + index)
            else:
                checked += readers[index].tell("facts")["seen"]
                readers[index].kill()
                keep = 4 * index
                readers[index] = Helper("receive", free_port, keep, f"r{keep}")
        for sender in senders:
            sender.close()
        observer = EmbeddedMessagingBackend(port=free_port, auto_start_server=False)
        for reader in readers:
            reader.tell("drop")
        empty = {"segments": 0, "slots_in_use": 0, "held_slots": 0}
        wait_until(lambda: slots_of(observer) == empty, timeout=20)
        for reader in readers:
            seen = reader.tell("drop")
            assert (seen["wrong"], seen["changed"], seen["writable"]) == (0, 0, 0)
            checked += seen["seen"]
            reader.close()
        wait_until(lambda: not memory_files())
        observer.cleanup()
        server.close()
        print(f"checked {checked} parts, kills {kills}")
        assert checked > 0
