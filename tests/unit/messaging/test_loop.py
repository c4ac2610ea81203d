"""The loop of a server, turn by turn, with a client on a real socket."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator

import pytest

from rustic_ai.core.messaging.backend.embedded_backend.core import Core
from rustic_ai.core.messaging.backend.embedded_backend.loop import Loop
from rustic_ai.core.messaging.backend.embedded_backend.protocol import (
    FrameReader,
    Op,
    pack,
    pack_names,
)
from rustic_ai.core.messaging.core.stop_signal import StopSignal
from tests.unit.messaging.wire import hello, message

LIMIT = 10.0
"""Seconds in which something must have happened."""


class Client:
    """The far end of a connection to a loop, on the same thread."""

    def __init__(self, loop: Loop, address: tuple[str, int]) -> None:
        self.loop = loop
        self.socket = socket.create_connection(address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.reader = FrameReader(1 << 20)

    def send(self, *frames: bytes) -> None:
        """Send, and let the server see it."""
        self.socket.sendall(b"".join(frames))
        self.loop.turn()

    def hear(self, op: Op) -> int:
        """Let the server go on until it says something; returns the id in it."""
        deadline = time.monotonic() + LIMIT
        while time.monotonic() < deadline:
            with contextlib.suppress(BlockingIOError):
                for frame in self.reader.feed(self.socket.recv(1 << 16, socket.MSG_DONTWAIT)):
                    if frame.op == op:
                        return frame.id if op != Op.TOPIC else frame.topic
                continue
            self.loop.turn()
        raise AssertionError(f"no {op!r} within {LIMIT:g} s")


@pytest.fixture
def core() -> Core:
    return Core()


@pytest.fixture
def client(core: Core) -> Iterator[Client]:
    """Give a client that was welcomed."""
    with socket.create_server(("127.0.0.1", 0)) as listener, StopSignal() as stop:
        loop = Loop(core, None, listener, None, stop, max_connections=10)
        client = Client(loop, listener.getsockname())
        client.loop.turn()
        client.send(hello(7))
        client.hear(Op.HELLO)
        yield client
        client.socket.close()
        loop.close()


def test_whoever_waits_for_answers_is_no_stream(core: Core, client: Client) -> None:
    """However quickly they come: read at intervals, it would wait for each of them."""
    client.send(pack(Op.TOPIC, pack_names("space", "space:t"), n=1))
    topic = client.hear(Op.TOPIC)
    client.send(pack(Op.SUBSCRIBE, pack_names("s") + b"\0", aux=1, topic=topic, n=4096))
    client.hear(Op.SUBSCRIBE)
    for number in range(500):
        client.send(message(topic, number))
        assert client.hear(Op.DELIVER) == number
        assert core.counted["streams"] == 0
    client.send(pack(Op.TOPIC, pack_names("space", "space:other"), n=2))
    other = client.hear(Op.TOPIC)
    deadline = time.monotonic() + LIMIT
    while not core.counted["streams"] and time.monotonic() < deadline:
        client.send(message(other, 1))
    assert core.counted["streams"] == 1
