"""The backend contract over every backend that comes with the core."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rustic_ai.core.messaging import InMemoryMessagingBackend, MessagingBackend
from rustic_ai.core.messaging.backend.embedded_backend import EmbeddedMessagingBackend
from rustic_ai.core.testing.contracts.messaging_backend import (
    Connect,
    MessagingBackendContract,
    refuses,
)


class TestInMemory(MessagingBackendContract):
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


class TestEmbedded(MessagingBackendContract):
    """Connections to a server in a process of its own."""

    @pytest.fixture
    def connect(self, free_port: int) -> Iterator[Connect]:
        opened: list[MessagingBackend] = []

        def connect() -> MessagingBackend:
            opened.append(EmbeddedMessagingBackend(port=free_port))
            return opened[-1]

        connect()
        yield connect
        for backend in reversed(opened):
            backend.cleanup()
