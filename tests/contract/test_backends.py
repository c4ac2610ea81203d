"""The backend contract over every backend that comes with the core."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rustic_ai.core.messaging import InMemoryMessagingBackend, MessagingBackend
from rustic_ai.core.messaging.backend.embedded_backend import (
    EmbeddedMessagingBackend,
    PriorityLanesMessagingBackend,
)
from rustic_ai.core.messaging.backend.embedded_backend.dial import Transport
from rustic_ai.core.testing.contracts.durable_messaging import DurableMessagingContract
from rustic_ai.core.testing.contracts.large_parts import LargePartsContract
from rustic_ai.core.testing.contracts.messaging_backend import (
    Connect,
    MessagingBackendContract,
    refuses,
)


class TestInMemory(MessagingBackendContract, DurableMessagingContract, LargePartsContract):
    """One object is the whole world."""

    @pytest.fixture
    def connect(self) -> Iterator[Connect]:
        backend = InMemoryMessagingBackend()
        yield lambda: backend
        backend.cleanup()

    def test_closing_one_connection_leaves_the_others(self, connect: Connect) -> None:
        """After `cleanup`, which may be called twice, the object refuses."""
        backend = connect()
        backend.cleanup()
        backend.cleanup()
        refuses(backend)


class TestEmbedded(MessagingBackendContract, DurableMessagingContract, LargePartsContract):
    """Connections to a server in a process of its own, over its Unix socket."""

    transport: Transport = "unix"
    backend_class = EmbeddedMessagingBackend

    @pytest.fixture
    def connect(self, free_port: int) -> Iterator[Connect]:
        opened: list[MessagingBackend] = []
        owner = EmbeddedMessagingBackend(port=free_port)

        def connect() -> MessagingBackend:
            opened.append(self.backend_class(port=free_port, transport=self.transport))
            return opened[-1]

        yield connect
        for backend in reversed(opened):
            backend.cleanup()
        owner.cleanup()


class TestEmbeddedOverTcp(TestEmbedded):
    """The same over TCP."""

    transport = "tcp"


class TestEmbeddedWithLanes(TestEmbedded):
    """The same with a lane per priority."""

    backend_class = PriorityLanesMessagingBackend
