"""A Redis server of the test's own: on a free port of this machine, ended with the test."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import ssl
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rustic_ai.core.messaging import MessagingBackend
from rustic_ai.core.testing.contracts.messaging_backend import SPACE, TOPIC
from rustic_ai.core.testing.waiting import wait_until
from rustic_ai.redis import RedisMessagingBackend
from tests.ports import free_tcp_port

Open = Callable[..., RedisMessagingBackend]
OUT = f"{SPACE}:out"
REQUIRED_VARIABLE = "RUSTIC_REQUIRE_SERVERS"
"""Where it is 1, a test fails instead of being skipped because its server is not installed."""
_READY_WITHIN = 20.0


def need(program: str, how: str) -> str:
    """Return where a program is; skip the test, or fail it, where it is not installed."""
    found = shutil.which(program)
    if found is not None:
        return found
    reason = f"{program} is not installed; {how}"
    if os.environ.get(REQUIRED_VARIABLE) == "1":
        pytest.fail(f"{reason} ({REQUIRED_VARIABLE} is 1)")
    pytest.skip(reason)


class RedisServer:
    """A `redis-server` process; keeps nothing on the disk where it is not told to.

    Args:
        folder: its working directory.
        options: of its command line, ``{"appendonly": "yes"}``; None: leave a default out.
        tls: a certificate and its key: it then talks TLS on its port, and nothing else.
    """

    def __init__(
        self,
        folder: Path,
        options: dict[str, str | None] | None = None,
        *,
        tls: tuple[Path, Path] | None = None,
    ) -> None:
        self._program = need("redis-server", "get it with: apt-get install redis-server")
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.port = free_tcp_port()
        self.password = (options or {}).get("requirepass")
        self._tls = tls
        self._options: dict[str, str | None] = {
            "bind": "127.0.0.1",
            "save": "",
            "appendonly": "no",
            "daemonize": "no",
            "dir": str(folder),
            **(options or {}),
        }
        if tls is None:
            self._options["port"] = str(self.port)
        else:
            files = {"tls-cert-file": str(tls[0]), "tls-key-file": str(tls[1])}
            self._options |= {"port": "0", "tls-port": str(self.port), "tls-auth-clients": "no"}
            self._options |= files
        self.start()

    @property
    def settings(self) -> dict[str, Any]:
        """What a backend needs to connect; without password and certificate."""
        return {"host": "127.0.0.1", "port": self.port, "db": 0}

    def start(self) -> None:
        """Start it; returns when it answers."""
        given = self._options.items()
        arguments = [word for k, v in given if v is not None for word in (f"--{k}", v)]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [self._program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            wait_until(self._is_ready, timeout=_READY_WITHIN)
        except AssertionError:
            self.close()
            raise AssertionError((self.folder / "log").read_text()) from None

    def _is_ready(self) -> bool:
        assert self.process.poll() is None, (self.folder / "log").read_text()
        try:
            return self.ask("PING") == "+PONG"
        except OSError:
            return False

    def ask(self, command: str) -> str:
        """Return the first line of the answer to a command, or what stands behind its length."""
        with contextlib.ExitStack() as stack:
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", self.port), 5))
            if self._tls is not None:
                context = ssl.create_default_context(cafile=str(self._tls[0]))
                sock = stack.enter_context(context.wrap_socket(sock, server_hostname="localhost"))
            stream = stack.enter_context(sock.makefile("rwb"))
            if self.password is not None:
                stream.write(f"AUTH {self.password}\r\n".encode())
                stream.flush()
                assert stream.readline() == b"+OK\r\n"
            stream.write(command.encode() + b"\r\n")
            stream.flush()
            line = stream.readline().decode().rstrip()
            if line.startswith("$") and line != "$-1":
                return str(stream.read(int(line[1:])).decode())
            return line

    def kill(self) -> None:
        """`kill -9`, and collect."""
        self.process.kill()
        self.process.wait()

    def restart(self) -> None:
        """Kill it, and start another on the same port and directory."""
        self.kill()
        self.start()

    def close(self) -> None:
        """End it for good."""
        self.kill()


@contextlib.contextmanager
def redis_server(
    folder: Path,
    options: dict[str, str | None] | None = None,
    *,
    tls: tuple[Path, Path] | None = None,
) -> Iterator[RedisServer]:
    """Run a server; see `RedisServer`."""
    server = RedisServer(folder, options, tls=tls)
    try:
        yield server
    finally:
        server.close()


@pytest.fixture(scope="session", name="shared_redis")
def shared_redis_fixture(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """Give a server for tests that harm nobody else's keys: each uses a prefix of its own."""
    with redis_server(tmp_path_factory.mktemp("redis")) as found:
        yield found


@pytest.fixture(name="opened")
def opened_fixture() -> Iterator[list[MessagingBackend]]:
    """Give a list whose backends are cleaned up."""
    backends: list[MessagingBackend] = []
    yield backends
    for backend in reversed(backends):
        backend.cleanup()


@pytest.fixture(name="settings")
def settings_fixture(shared_redis: RedisServer) -> dict[str, Any]:
    """Give the settings for keys of this test's own."""
    return {**shared_redis.settings, "prefix": f"test-{uuid.uuid4().hex}"}


@pytest.fixture(name="connect")
def connect_fixture(settings: dict[str, Any], opened: list[MessagingBackend]) -> Open:
    """Give a function that connects to the shared server."""
    return opener(settings, opened)


def opener(settings: dict[str, Any], opened: list[MessagingBackend]) -> Open:
    """Return a function that connects with these settings."""

    def connect(**more: Any) -> RedisMessagingBackend:
        backend = RedisMessagingBackend(**{**settings, **more})
        opened.append(backend)
        return backend

    return connect


def texts(backend: MessagingBackend, topic: str = TOPIC) -> list[str]:
    """Return what stands in a topic."""
    return [m.payload["text"] for m in backend.get_messages_for_topic(topic)]


def facts_of(backend: MessagingBackend, subscriber: str) -> dict[str, Any]:
    """Return what the server tells of a subscriber."""
    found: dict[str, Any] = backend.get_statistics()["topics"][TOPIC]["subscribers"][subscriber]
    return found


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """Make a certificate for localhost that signs itself; returns it, and its key."""
    openssl = need("openssl", "get it with: apt-get install openssl")
    folder.mkdir(parents=True, exist_ok=True)
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    subprocess.run(
        [
            *(openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-keyout", str(key), "-out", str(certificate), "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
        ],
        check=True,
        capture_output=True,
        timeout=60,
    )
    return certificate, key
