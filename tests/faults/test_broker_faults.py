"""Strangers, garbage and death at the message server."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import psutil
import pytest

from rustic_ai.core.errors import (
    BackendUnavailableError,
    MessageTooLargeError,
    MessagingConfigError,
    PortTakenError,
)
from rustic_ai.core.messaging.backend.embedded_backend import (
    EmbeddedMessagingBackend,
    EmbeddedServer,
)
from rustic_ai.core.messaging.backend.embedded_backend.access import NONCE_SIZE, find_server
from rustic_ai.core.messaging.backend.embedded_backend.dial import Address, dial
from rustic_ai.core.messaging.backend.embedded_backend.greeting import CLIENT
from rustic_ai.core.messaging.backend.embedded_backend.inbox import Subscription
from rustic_ai.core.messaging.backend.embedded_backend.protocol import (
    HEADER,
    MAGIC,
    MAX_FRAME,
    VERSION,
    Op,
    pack,
)
from rustic_ai.core.testing.contracts.messaging_backend import SPACE, TOPIC, Box, message
from rustic_ai.core.testing.waiting import wait_until

HELLO = pack(Op.HELLO, bytes(CLIENT.size + NONCE_SIZE), id=MAGIC, n=VERSION)


@pytest.fixture
def server() -> Iterator[EmbeddedServer]:
    server = EmbeddedServer(port=0)
    asyncio.run(server.start())
    yield server
    asyncio.run(server.stop())


@pytest.fixture
def backend(server: EmbeddedServer) -> Iterator[EmbeddedMessagingBackend]:
    backend = EmbeddedMessagingBackend(port=server.port, auto_start_server=False)
    backend.start()
    yield backend
    backend.cleanup()


def reply_to(port: int, data: bytes) -> bytes:
    """Send bytes to the Unix socket and return what comes until the server closes it."""
    known = find_server(port)
    assert known is not None
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(10)
        sock.connect(str(known.socket_path))
        received = b""
        try:
            sock.sendall(data)
            while more := sock.recv(65536):
                received += more
        except (ConnectionResetError, BrokenPipeError):
            pass  # closed while our garbage was still on its way
        return received


def still_works(backend: EmbeddedMessagingBackend) -> None:
    """Check that a message goes through."""
    box = Box()
    backend.subscribe(TOPIC, box, subscriber="check")
    backend.store_message(SPACE, TOPIC, message("fine"))
    wait_until(lambda: "fine" in box.texts)
    backend.unsubscribe(TOPIC, subscriber="check")


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\x00" * 64,
        b"\xff" * 64,
        HELLO + b"\xff" * 64,
        HELLO + HEADER.pack(MAX_FRAME + 1, Op.PUBLISH, 0, 0, 0, 1, 1),
        HELLO + pack(Op.TOPIC, b"\xff\xff"),
        HELLO + pack(Op.PUBLISH, b"x", topic=12345),
    ],
    ids=["http", "zeros", "ones", "ones-after-hello", "too-large", "bad-name", "unknown-topic"],
)
def test_garbage_costs_only_its_own_connection(
    server: EmbeddedServer, backend: EmbeddedMessagingBackend, data: bytes
) -> None:
    """A stranger is dropped at once with a reason; a healthy client beside it notices nothing."""
    answer = reply_to(server.port, data)
    assert answer == b"" or b"\x0b" in answer  # ERROR
    still_works(backend)


def test_a_subscriber_that_dies_with_its_output_waiting(
    server: EmbeddedServer, backend: EmbeddedMessagingBackend
) -> None:
    """A send that fails once there is room again costs that subscriber alone.

    In the prototype it took the server down: transport.md, bug 1.
    """
    link = dial(Address("localhost", server.port), 7)
    dying = Subscription(
        backend._topic(TOPIC, SPACE), "dying", None, start=0, durable=False, max_attempts=0
    )
    dying.number = 1
    link.socket.sendall(dying.opening(0))
    wait_until(lambda: backend.load_subscribers(SPACE) == {TOPIC: ["dying"]})
    for _ in range(40):  # more than both ends of the socket hold, and nobody reads it
        backend.store_message(SPACE, TOPIC, message("x" * 100_000))
    link.socket.close()
    wait_until(lambda: backend.load_subscribers(SPACE) == {})
    still_works(backend)


def test_hundreds_of_hostile_connections(
    server: EmbeddedServer, backend: EmbeddedMessagingBackend
) -> None:
    """Random bytes on many connections, some cut off, leave the server in peace."""
    rng = random.Random(7)
    for n in range(2000):
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as sock:
            prefix = HELLO if n % 2 else b""
            sock.sendall(prefix + rng.randbytes(rng.randrange(200)))
    still_works(backend)
    wait_until(lambda: backend.get_statistics()["server"]["connections"] == 1)


def test_silence_is_dropped_after_two_seconds(
    server: EmbeddedServer, backend: EmbeddedMessagingBackend
) -> None:
    """A connection that says nothing is closed, and does not count for long."""
    began = time.monotonic()
    assert reply_to(server.port, b"") == b""
    assert 1.0 < time.monotonic() - began < 8.0
    still_works(backend)


def test_a_message_over_the_limit(backend: EmbeddedMessagingBackend) -> None:
    """A message that is too large is refused before it is sent, and the client works on."""
    with pytest.raises(MessageTooLargeError, match="over the server's limit of 16,842,728"):
        backend.store_message(SPACE, TOPIC, message("x" * (17 << 20)))
    still_works(backend)


@pytest.mark.parametrize("size", [1, 48_001, 1_000_000, 16_000_000, 16 << 20])
def test_messages_of_all_sizes(backend: EmbeddedMessagingBackend, size: int) -> None:
    """From 1 byte to 16 MiB of payload: delivered, and kept as history."""
    box = Box()
    backend.subscribe(TOPIC, box)
    one = message("x" * size)
    backend.store_message(SPACE, TOPIC, one)
    wait_until(lambda: box.messages == [one])
    assert backend.get_messages_for_topic(TOPIC) == [one]


def test_a_stopped_server_is_noticed(server: EmbeddedServer) -> None:
    """After the server has gone for good, calls fail with its address instead of hanging."""
    backend = EmbeddedMessagingBackend(
        port=server.port, auto_start_server=False, reconnect_timeout=0.3
    )
    backend.start()
    backend.subscribe(TOPIC, Box())
    asyncio.run(server.stop())
    assert not server.running
    asyncio.run(server.stop())
    with pytest.raises(BackendUnavailableError, match=f"localhost:{server.port}"):
        backend.store_message(SPACE, TOPIC, message())
    with pytest.raises(BackendUnavailableError):
        backend.get_messages_for_topic(TOPIC)
    backend.cleanup()


def test_a_server_starts_again_on_its_port(server: EmbeddedServer) -> None:
    """A stopped server frees its port at once; starting twice changes nothing."""
    asyncio.run(server.start())
    asyncio.run(server.stop())
    again = EmbeddedServer(port=server.port)
    asyncio.run(again.start())
    assert again.running
    with pytest.raises(PortTakenError, match=f"localhost:{server.port} is held"):
        asyncio.run(EmbeddedServer(port=server.port).start())
    asyncio.run(again.stop())


def test_nobody_listens(free_port: int) -> None:
    """Without auto-start an absent server is an error in bounded time."""
    began = time.monotonic()
    with pytest.raises(
        BackendUnavailableError, match=f"no message server at localhost:{free_port}"
    ):
        EmbeddedMessagingBackend(port=free_port, auto_start_server=False, reconnect_timeout=0.3)
    assert time.monotonic() - began < 10
    with pytest.raises(MessagingConfigError, match="port 70000"):
        EmbeddedMessagingBackend(port=70000)


@pytest.mark.parametrize(("greets", "auto_start"), [(True, False), (False, True)])
def test_a_port_held_by_something_else(greets: bool, auto_start: bool) -> None:
    """Another service on the port, talkative or silent, is named as such in bounded time."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        accepted: list[socket.socket] = []

        def accept() -> None:
            connection, _ = other.accept()
            accepted.append(connection)
            if greets:
                connection.sendall(b"220 mail.example ESMTP ready, say something\r\n")

        thread = threading.Thread(target=accept)
        thread.start()
        with pytest.raises(PortTakenError, match=f"localhost:{port} is held"):
            EmbeddedMessagingBackend(port=port, auto_start_server=auto_start)
        thread.join(10)
        accepted[0].close()


PROGRAM = """
import sys
from rustic_ai.core.messaging.backend.embedded_backend import EmbeddedMessagingBackend
backend = EmbeddedMessagingBackend(port=int(sys.argv[1]))
print("connected", flush=True)
sys.stdin.readline()
backend.cleanup()
"""


def start_program(port: int) -> subprocess.Popen[str]:
    """Start a program that uses the server until it reads a line."""
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )


def servers_on(port: int) -> list[psutil.Process]:
    """Return the server processes for a port."""
    found = []
    for process in psutil.process_iter():
        try:
            line = process.cmdline()
        except psutil.Error:
            continue
        if line[-2:-1] == [str(port)] and "server_process" in " ".join(line):
            found.append(process)
    return found


def test_programs_that_start_at_once_share_one_server(free_port: int) -> None:
    """Of four programs at the same moment one starts the server; it ends with the last."""
    programs = [start_program(free_port) for _ in range(4)]
    for program in programs:
        assert program.stdout is not None
        assert program.stdout.readline() == "connected\n"
    wait_until(lambda: len(servers_on(free_port)) == 1)
    for program in programs[:-1]:
        program.communicate("end\n", timeout=20)
        assert program.returncode == 0
    assert len(servers_on(free_port)) == 1
    still = EmbeddedMessagingBackend(port=free_port, auto_start_server=False)
    still.start()
    still_works(still)
    still.cleanup()
    programs[-1].communicate("end\n", timeout=20)
    wait_until(lambda: not servers_on(free_port), timeout=2)


def test_the_server_outlives_its_owner_for_the_others(free_port: int) -> None:
    """`kill -9` of the program that started the server leaves it to those who use it."""
    with start_program(free_port) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "connected\n"
        other = EmbeddedMessagingBackend(port=free_port)
        other.start()
        owner.kill()
        owner.wait()
    still_works(other)
    other.cleanup()
    wait_until(lambda: not servers_on(free_port), timeout=2)


def test_nothing_is_held_back_when_the_owner_goes() -> None:
    """What clients send at the moment in which the server learns of it is answered at once."""
    for _ in range(100):
        server = EmbeddedServer(port=0)
        server.start_thread()
        client = EmbeddedMessagingBackend(port=server.port, auto_start_server=False)
        owner_goes = threading.Thread(target=server.end_when_empty, args=(lambda _: None,))
        owner_goes.start()
        sent = [message(str(n)) for n in range(10)]
        for one in sent:
            client.store_message(SPACE, TOPIC, one)
        assert client.get_messages_for_topic(TOPIC) == sent
        owner_goes.join()
        client.cleanup()
        server.join()
        server.stop_thread()


def test_the_server_ends_with_a_killed_owner(free_port: int) -> None:
    """Without other clients nothing is left two seconds after `kill -9`."""
    with start_program(free_port) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "connected\n"
        owner.kill()
        owner.wait()
    wait_until(lambda: not servers_on(free_port), timeout=2)


def test_an_own_server_on_a_free_port() -> None:
    """Port 0 starts a server of one's own, which others find by its number."""
    own = EmbeddedMessagingBackend(port=0)
    settings = own.settings_for_agents()
    assert settings["port"] != 0
    other = EmbeddedMessagingBackend(**settings)
    other.start()
    still_works(other)
    other.cleanup()
    own.cleanup()


def test_a_killed_server_is_started_again(free_port: int) -> None:
    """The program that started it starts another; subscribers and publishers go on."""
    backend = EmbeddedMessagingBackend(port=free_port)
    other = EmbeddedMessagingBackend(port=free_port, auto_start_server=False)
    box = Box()
    other.subscribe(TOPIC, box)
    other.start()
    backend.start()
    for round_ in range(3):
        (server,) = servers_on(free_port)
        server.kill()
        backend.store_message(SPACE, TOPIC, message(str(round_)))
        wait_until(lambda n=round_: len(box.texts) == n + 1)  # type: ignore[misc]
    assert box.texts == ["0", "1", "2"]
    still_works(backend)
    still_works(other)
    other.cleanup()
    backend.cleanup()
    assert servers_on(free_port) == []
