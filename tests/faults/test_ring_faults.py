"""Rings whose writers or servers die, and writers that mean no good."""

from __future__ import annotations

import itertools
import mmap
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rustic_ai.core.messaging.backend.embedded_backend import EmbeddedMessagingBackend
from rustic_ai.core.messaging.backend.embedded_backend.protocol import (
    HEADER,
    HEADER_SIZE,
    Op,
    pack,
    pack_names,
    pack_publish,
)
from rustic_ai.core.messaging.backend.embedded_backend.shared import ring
from rustic_ai.core.testing.contracts.messaging_backend import SPACE, TOPIC, message
from rustic_ai.core.testing.waiting import wait_until
from tests.chaos import ServerProgram
from tests.strangers import Stranger

pytestmark = pytest.mark.skipif(not ring.SUPPORTED, reason="needs memory files, and x86")

PUBLISHER = """
import mmap, os, sys
from rustic_ai.core.messaging.backend.embedded_backend import EmbeddedMessagingBackend
from rustic_ai.core.testing.contracts.messaging_backend import message

backend = EmbeddedMessagingBackend(port=int(sys.argv[1]), auto_start_server=False)
sent = mmap.mmap(os.open(sys.argv[2], os.O_RDWR), 8)
number = 0
while True:
    backend.send_message("s", "s:t", message(str(number)))
    number += 1
    sent[:] = number.to_bytes(8, "little")
"""


@pytest.fixture
def owner(free_port: int) -> Iterator[EmbeddedMessagingBackend]:
    """Give a connection to a server in a process of its own, which ends with it."""
    backend = EmbeddedMessagingBackend(port=free_port)
    yield backend
    backend.cleanup()


def facts(backend: EmbeddedMessagingBackend) -> dict[str, Any]:
    found: dict[str, Any] = backend.get_statistics()["server"]
    return found


def test_what_a_killed_publisher_has_sent_is_stored(
    owner: EmbeddedMessagingBackend, free_port: int, tmp_path: Path
) -> None:
    """`kill -9` loses nothing of what `send_message` had returned for, and breaks nothing up."""
    count = tmp_path / "sent"
    count.write_bytes(bytes(8))
    seen = 0
    for _ in range(5):
        arguments = [sys.executable, "-c", PUBLISHER, str(free_port), str(count)]
        with subprocess.Popen(arguments) as publisher:
            wait_until(lambda: facts(owner)["rings"])
            publisher.send_signal(signal.SIGKILL)
        wait_until(lambda: facts(owner)["connections"] == 1)
        assert facts(owner)["rings"] == 0
        stored = owner.get_statistics()["topics"]["s:t"]["messages_in"] - seen
        sent = int.from_bytes(count.read_bytes(), "little")
        assert sent <= stored <= sent + 1
        last = owner.get_messages_for_topic("s:t")[-1]
        assert last.payload["text"] == str(stored - 1)
        seen += stored


def test_a_server_killed_under_a_stream(free_port: int, tmp_path: Path) -> None:
    """With a journal nothing is lost, doubled or out of order, through five of its deaths."""
    server = ServerProgram(free_port, {"data_dir": str(tmp_path)})
    publisher = EmbeddedMessagingBackend(port=free_port, auto_start_server=False)
    other = EmbeddedMessagingBackend(port=free_port, auto_start_server=False)
    numbers, enough = itertools.count(), threading.Event()

    def stream() -> None:
        while not enough.is_set():
            for number in itertools.islice(numbers, 1_000):
                publisher.send_message(SPACE, TOPIC, message(str(number)))

    thread = threading.Thread(target=stream)
    thread.start()
    try:
        for _ in range(5):
            wait_until(lambda: facts(other)["rings"])
            server.kill()
    finally:
        enough.set()
        thread.join()
    publisher.store_message(SPACE, TOPIC, message("end"))
    found = [m.payload["text"] for m in other.get_messages_for_topic(TOPIC)]
    assert found == [*map(str, range(next(numbers))), "end"]
    other.cleanup()
    publisher.cleanup()
    server.close()


class RingStranger(Stranger):
    """Has a ring of its own making."""

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self.link.socket.sendall(pack(Op.TOPIC, pack_names(SPACE, TOPIC)))
        self.topic = HEADER.unpack(self.link.socket.recv(HEADER_SIZE))[4]

    def offer(self, fd: int) -> int:
        """Give it away; return the kind of the answer."""
        socket.send_fds(self.channel, [pack(Op.RING)], [fd])
        return self.hear(self.channel)

    def look(self, written: int) -> int:
        """Say that so much stands there; return the kind of the answer."""
        self.link.socket.sendall(pack(Op.LOOK, id=written))
        return self.hear(self.link.socket)


@pytest.fixture
def stranger(owner: EmbeddedMessagingBackend, free_port: int) -> Iterator[RingStranger]:
    """Give one; others do not notice it."""
    one = RingStranger(free_port)
    yield one
    one.close()
    wait_until(lambda: facts(owner)["connections"] == 1)
    assert facts(owner)["rings"] == 0
    owner.store_message(SPACE, TOPIC, message("fine"))
    assert owner.get_messages_for_topic(TOPIC)[-1].payload["text"] == "fine"


@pytest.mark.parametrize("kind", ["not sealed", "another size", "no memory file"])
def test_a_descriptor_that_is_no_ring(stranger: RingStranger, kind: str) -> None:
    """It is refused, and closed."""
    assert stranger.greet(Op.RING) == Op.RING
    if kind == "no memory file":
        fd = os.open("/dev/null", os.O_RDONLY)
    else:
        fd = os.memfd_create("rustic-test", os.MFD_ALLOW_SEALING)
        os.ftruncate(fd, mmap.PAGESIZE + (256 << 10) * (kind == "not sealed"))
    assert stranger.offer(fd) == Op.ERROR
    os.close(fd)


def test_a_ring_without_a_descriptor(stranger: RingStranger) -> None:
    """It costs the connection that should have brought it."""
    assert stranger.greet(Op.RING) == Op.RING
    stranger.channel.sendall(pack(Op.RING))
    assert stranger.hear(stranger.channel) == Op.ERROR


def test_a_ring_for_nobody(stranger: RingStranger) -> None:
    """A client that is not here has none."""
    assert stranger.greet(Op.RING, 12345) == Op.ERROR


@pytest.mark.parametrize("harm", ["nonsense", "a part", "too much"])
def test_what_stands_in_a_ring_is_not_trusted(
    stranger: RingStranger, owner: EmbeddedMessagingBackend, harm: str
) -> None:
    """It costs its own connection alone; a second ring does not take the place of the first."""
    assert stranger.greet(Op.RING) == Op.RING
    fd = ring.RingWriter.make()
    assert stranger.offer(fd) == Op.RING
    frame = pack_publish(stranger.topic, 1, b"")
    with mmap.mmap(fd, mmap.PAGESIZE + (256 << 10)) as memory:
        memory[mmap.PAGESIZE : mmap.PAGESIZE + 2 * len(frame)] = frame + (
            b"\xff" * len(frame) if harm == "nonsense" else frame
        )
        written = {"nonsense": 2 * len(frame), "a part": len(frame) + 5, "too much": 1 << 40}[harm]
        memory[:8] = written.to_bytes(8, "little")
    os.close(fd)
    assert stranger.look(written) == Op.ERROR
    stored = owner.get_statistics()["topics"][TOPIC]["messages_in"]
    assert stored == (harm != "too much")
