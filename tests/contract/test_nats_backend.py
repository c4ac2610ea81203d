"""The backend contract over NATS JetStream, on a real server."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from rustic_ai.core.messaging import MessagingBackend
from rustic_ai.core.testing.contracts.durable_messaging import DurableMessagingContract
from rustic_ai.core.testing.contracts.large_parts import LargePartsContract
from rustic_ai.core.testing.contracts.messaging_backend import Connect, MessagingBackendContract
from rustic_ai.nats.messaging import NatsMessagingBackend
from rustic_ai.nats.settings import Storage
from tests.nats_server import NatsServer, nats_server

__all__ = ["nats_server"]
_streams = itertools.count(1)


class TestNats(MessagingBackendContract, DurableMessagingContract, LargePartsContract):
    """Connections to a server of NATS, each test with a stream of its own."""

    storage: Storage = "memory"

    @pytest.fixture
    def connect(self, nats_server: NatsServer) -> Iterator[Connect]:
        opened: list[MessagingBackend] = []
        stream = f"contract-{self.storage}-{next(_streams)}"

        def connect() -> MessagingBackend:
            backend = NatsMessagingBackend(
                nats_server.url, stream=stream, storage=self.storage, max_bytes=16 << 20
            )
            opened.append(backend)
            return backend

        yield connect
        for backend in reversed(opened):
            backend.cleanup()


class TestNatsOnDisk(TestNats):
    """The same with what outlives the server."""

    storage = "file"
