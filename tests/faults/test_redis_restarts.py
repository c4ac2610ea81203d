"""Redis killed, restarted, replaced, emptied, stopped, full: its clients go on, or say why not."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rustic_ai.core.errors import (
    BackendUnavailableError,
    BackPressureError,
)
from rustic_ai.core.messaging import MessagingBackend
from rustic_ai.core.messaging.core.message import Message
from rustic_ai.core.messaging.core.stop_signal import StopSignal
from rustic_ai.core.testing.contracts.messaging_backend import SPACE, TOPIC, Box, message
from rustic_ai.core.testing.waiting import wait_until
from tests.redis_server import (
    OUT,
    Open,
    RedisServer,
    connect_fixture,  # noqa: F401 - a fixture
    opened_fixture,  # noqa: F401 - a fixture
    opener,
    redis_server,
    settings_fixture,  # noqa: F401 - a fixture
    shared_redis_fixture,  # noqa: F401 - a fixture
    texts,
)

COUNT = 10_000
SAFE: dict[str, str | None] = {
    "appendonly": "yes",
    "appendfsync": "always",
    "repl-diskless-sync-delay": "0",
}


@pytest.fixture
def own(tmp_path: Path) -> Iterator[RedisServer]:
    """Give a server that keeps what it acknowledges, for tests that kill it."""
    with redis_server(tmp_path / "redis", SAFE) as server:
        yield server


def relay_to(backend: MessagingBackend, topic: str) -> list[str]:
    """Have a durable subscriber pass everything on; returns what it has had in hand."""
    seen: list[str] = []

    def relay(got: Message) -> None:
        seen.append(got.payload["text"])
        backend.send_message(SPACE, topic, message(got.payload["text"]))

    backend.subscribe(TOPIC, relay, subscriber="relay", durable=True, from_start=True)
    backend.start()
    return seen


def test_lost_connections_double_nothing(connect: Open, shared_redis: RedisServer) -> None:
    """Every connection cut again and again: each message is relayed once, and in order."""
    publisher, relay, box = connect(), connect(), Box()
    relayed = relay_to(relay, OUT)
    publisher.subscribe(OUT, box, subscriber="sink", durable=True)
    publisher.start()
    for n in range(3000):
        publisher.send_message(SPACE, TOPIC, message(str(n)))
        if n % 500 == 250:
            wait_until(lambda n=n: len(relayed) > n - 250)  # type: ignore[misc]
            shared_redis.ask("CLIENT KILL TYPE normal SKIPME yes")
    wait_until(lambda: len(box.messages) >= 3000, timeout=30)
    numbers = [str(n) for n in range(3000)]
    assert texts(publisher, TOPIC) == numbers
    assert texts(publisher, OUT) == numbers
    assert box.texts == numbers


class Wire:
    """Carries connections to a server, and can break: the server does not hear of it.

    Args:
        port: of the server.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._clients: list[socket.socket] = []
        self._servers: list[socket.socket] = []
        self._opened = [self._listener]
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._target))
            self._clients.append(client)
            self._servers.append(server)
            self._opened += (client, server)
            for source, target in ((client, server), (server, client)):
                self._threads.append(threading.Thread(target=_carry, args=(source, target)))
                self._threads[-1].start()

    def cut(self) -> None:
        """Break all connections for the clients; those to the server stay."""
        while self._clients:
            with contextlib.suppress(OSError):  # closed by its client
                self._clients.pop().shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End everything."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self.cut()
        for server in self._servers:
            server.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
        for sock in self._opened:
            sock.close()


def _carry(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):  # the other side is cut
        while data := source.recv(1 << 16):
            target.sendall(data)


def test_the_ghost_of_a_connection_takes_nothing(
    shared_redis: RedisServer, connect: Open, opened: list[MessagingBackend]
) -> None:
    """A connection that only the server takes for alive waits there, and gets no message."""
    wire = Wire(shared_redis.port)
    publisher, box = connect(), Box()
    subscriber = connect(port=wire.port)
    try:
        subscriber.subscribe(TOPIC, box, subscriber="s", durable=True)
        subscriber.start()
        wanted = []
        for n in range(5):
            for text in (f"{n} before", f"{n} after"):
                publisher.store_message(SPACE, TOPIC, message(text))
                wanted.append(text)
                box.wait(*wanted)
            wire.cut()
        assert {m.attempt for m in box.messages} == {1}
    finally:
        opened.remove(subscriber)
        subscriber.cleanup()
        wire.close()


@pytest.mark.timeout(180)
def test_a_server_killed_in_the_middle_of_10000_messages(
    own: RedisServer, opened: list[MessagingBackend]
) -> None:
    """Nothing acknowledged is lost, order holds, nothing is doubled, clients recover by themselves.

    Of a publisher that waits for nobody, a relay whose steps are atomic, and a durable reader.
    """
    connect = opener(own.settings, opened)
    publisher, relay, sink, box = connect(), connect(), connect(), Box()
    relayed = relay_to(relay, OUT)
    sink.subscribe(OUT, box, subscriber="sink", durable=True)
    sink.start()
    kills = {COUNT // 4, COUNT // 2, COUNT * 3 // 4}
    killer = None
    for n in range(COUNT):
        publisher.send_message(SPACE, TOPIC, message(str(n)))
        if n in kills:  # while all of them are at work
            if killer is not None:
                killer.join()
            wait_until(lambda n=n: len(relayed) > n // 2, timeout=60)  # type: ignore[misc]
            killer = threading.Thread(target=own.restart)
            killer.start()
    assert killer is not None
    killer.join()
    wait_until(lambda: len(box.messages) >= COUNT, timeout=90)
    numbers = [str(n) for n in range(COUNT)]
    assert texts(publisher, TOPIC) == numbers
    assert texts(publisher, OUT) == numbers
    assert box.texts == numbers
    assert {m.attempt for m in box.messages} == {1}  # it was the server that crashed, nobody else


def test_clients_outlive_a_server_that_keeps_nothing(
    tmp_path: Path, opened: list[MessagingBackend], caplog: pytest.LogCaptureFixture
) -> None:
    """What it had is gone with it, which is said; subscriptions go on with all that is new."""
    with redis_server(tmp_path / "redis") as server:
        connect = opener(server.settings, opened)
        publisher, subscriber = connect(), connect()
        durable, plain = Box(), Box()
        subscriber.subscribe(TOPIC, durable, subscriber="s", durable=True)
        subscriber.subscribe(TOPIC, plain)
        subscriber.start()
        wanted: list[str] = []
        for n in range(3):
            for when in ("before", "after"):
                publisher.store_message(SPACE, TOPIC, message(f"{when} {n}"))
                wanted.append(f"{when} {n}")
                durable.wait(*wanted)
                plain.wait(*wanted)
                if when == "before":
                    server.restart()
            assert texts(publisher) == [f"after {n}"]
        assert "has lost the place of 's' in topic 'space:topic'" in caplog.text
        assert subscriber.load_subscribers(SPACE) == {TOPIC: ["", "s"]}
        while opened:  # before their server goes
            opened.pop().cleanup()


def test_a_database_that_was_emptied(connect: Open, settings: dict[str, Any]) -> None:
    """Subscriptions go on when somebody deletes all keys under them."""
    own_db = {"db": 7}
    backend, box, plain = connect(**own_db), Box(), Box()
    backend.subscribe(TOPIC, box, subscriber="s", durable=True)
    backend.subscribe(TOPIC, plain)
    backend.start()
    backend.store_message(SPACE, TOPIC, message("1"))
    box.wait("1")
    plain.wait("1")
    with socket.create_connection((settings["host"], settings["port"])) as sock:
        sock.sendall(b"SELECT 7\r\nFLUSHDB\r\n")
        assert sock.recv(100).startswith(b"+OK")
    backend.store_message(SPACE, TOPIC, message("2"))
    box.wait("1", "2")
    plain.wait("1", "2")


@pytest.mark.timeout(120)
@pytest.mark.parametrize("lacks", [False, True], ids=["up to date", "lacks the last"])
def test_a_fail_over_to_a_replica(
    own: RedisServer, tmp_path: Path, opened: list[MessagingBackend], lacks: bool
) -> None:
    """The primary dies, its replica takes over: with `replicas`, nothing is lost or doubled.

    Not even where it lacks what the primary has already shown to subscribers, and what its
    publishers store once more since it was not confirmed.
    """
    with redis_server(tmp_path / "replica", SAFE) as replica:
        replica.ask(f"REPLICAOF 127.0.0.1 {own.port}")
        wait_until(lambda: "master_link_status:up" in replica.ask("INFO replication"), timeout=30)
        connect = opener({**own.settings, "replicas": 1}, opened)
        publisher, relay, box = connect(), connect(), Box()
        relay_to(relay, OUT)
        publisher.subscribe(OUT, box, subscriber="sink", durable=True)
        publisher.start()
        for n in range(2000):
            publisher.send_message(SPACE, TOPIC, message(str(n)))
            if n == 1000 and lacks:
                wait_until(lambda: len(box.messages) > 1000)
                wait_until(
                    lambda: _has_confirmed_all(own)
                )  # else the relay waits for it from now on
                replica.ask("REPLICAOF NO ONE")
            if n == 1100:
                wait_until(lambda: len(box.messages) > (1001 if lacks else 500))
                own.kill()
                replica.ask(f"CONFIG SET port {own.port}")  # as a virtual address would move
                replica.port = own.port
                if not lacks:
                    wait_until(lambda: int(_field(replica, "total_error_replies")) > 0)  # READONLY
                    replica.ask("REPLICAOF NO ONE")
                third = RedisServer(tmp_path / "third", SAFE)  # else no replica is left
                third.ask(f"REPLICAOF 127.0.0.1 {replica.port}")
        try:
            wait_until(lambda: len(box.messages) >= 2000, timeout=60)
            numbers = [str(n) for n in range(2000)]
            assert texts(publisher, OUT) == numbers
            assert box.texts == numbers
        finally:
            while opened:
                opened.pop().cleanup()
            third.close()


def _has_confirmed_all(primary: RedisServer) -> bool:
    """Say whether the replica has told that it has all."""
    told = primary.ask("INFO replication")
    confirmed = re.search(r"offset=(\d+)", told)
    return confirmed is not None and f"master_repl_offset:{confirmed[1]}" in told


def _field(server: RedisServer, name: str) -> str:
    lines = server.ask("INFO").splitlines()
    return next(line.partition(":")[2] for line in lines if line.startswith(f"{name}:"))


def test_a_server_that_stays_away(own: RedisServer, opened: list[MessagingBackend]) -> None:
    """After `reconnect_timeout` who calls or serves gets an error that says where and why."""
    backend = opener({**own.settings, "reconnect_timeout": 1.0}, opened)()
    backend.subscribe(TOPIC, Box(), subscriber="s", durable=True)
    own.kill()
    begun = time.monotonic()
    with StopSignal() as stop, pytest.raises(BackendUnavailableError) as served:
        backend.serve(stop)
    for call in (
        lambda: backend.store_message(SPACE, TOPIC, message("1")),
        lambda: backend.get_messages_for_topic(TOPIC),
    ):
        with pytest.raises(BackendUnavailableError) as stored:
            call()
        assert f"127.0.0.1:{own.port}" in str(stored.value)
    backend.cleanup()
    assert time.monotonic() - begun < 5
    assert "refused" in str(served.value)
    own.start()


def test_a_server_that_hangs(
    own: RedisServer, opened: list[MessagingBackend], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stopped server counts as gone after a while; when it goes on, so do its clients."""
    monkeypatch.setattr("rustic_ai.redis.store.ANSWER_WITHIN", 0.3)
    backend = opener({**own.settings, "reconnect_timeout": 20.0}, opened)()
    hasty = opener({**own.settings, "reconnect_timeout": 0.5}, opened)()
    process = own.process
    os.kill(process.pid, 19)
    with pytest.raises(BackendUnavailableError):
        hasty.store_message(SPACE, TOPIC, message("lost"))
    threading.Timer(1.0, lambda: os.kill(process.pid, 18)).start()
    backend.store_message(SPACE, TOPIC, message("kept"))
    assert texts(backend).count("kept") == 1


def test_cleanup_has_an_end_when_the_server_is_away(
    own: RedisServer, opened: list[MessagingBackend]
) -> None:
    """`cleanup` returns within a bounded time, whatever is under way."""
    backend = opener(own.settings, opened)()
    backend.subscribe(TOPIC, Box(), subscriber="s", durable=True)
    backend.subscribe(OUT, Box())
    backend.start()
    own.kill()
    backend.send_message(SPACE, TOPIC, message("1"))
    begun = time.monotonic()
    backend.cleanup()
    assert time.monotonic() - begun < 9
    own.start()


def test_a_full_server(tmp_path: Path, opened: list[MessagingBackend]) -> None:
    """`maxmemory` reached: a publisher gets a `BackPressureError`; with room again it goes on."""
    with redis_server(tmp_path / "redis") as server:
        backend = opener({**server.settings, "reconnect_timeout": 0.5}, opened)()
        backend.store_message(SPACE, TOPIC, message("1"))
        server.ask("CONFIG SET maxmemory 1")
        with pytest.raises(BackPressureError, match="maxmemory"):
            backend.store_message(SPACE, TOPIC, message("2"))
        server.ask("CONFIG SET maxmemory 0")
        backend.store_message(SPACE, TOPIC, message("3"))
        assert texts(backend) == ["1", "3"]
