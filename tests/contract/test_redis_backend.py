"""The backend contract over a real Redis server."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from rustic_ai.core.errors import MessageTooLargeError
from rustic_ai.core.messaging import MessagingBackend
from rustic_ai.core.testing.contracts.durable_messaging import DurableMessagingContract
from rustic_ai.core.testing.contracts.large_parts import (
    LargePartsContract,
    Repeated,
    taken,
    with_parts,
)
from rustic_ai.core.testing.contracts.messaging_backend import (
    SPACE,
    TOPIC,
    Box,
    Connect,
    MessagingBackendContract,
    message,
)
from rustic_ai.core.testing.waiting import wait_until
from rustic_ai.redis import RedisMessagingBackend
from rustic_ai.redis.messaging import LARGEST
from tests.redis_server import (
    RedisServer,
    make_certificate,
    redis_server,
    shared_redis_fixture,  # noqa: F401 - a fixture
)


@pytest.fixture(scope="module")
def tls_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Give the settings for a server that wants TLS and a password."""
    folder = tmp_path_factory.mktemp("redis-tls")
    tls = make_certificate(folder)
    with redis_server(folder, {"requirepass": "open-sesame"}, tls=tls) as found:
        url = f"rediss://:open-sesame@localhost:{found.port}/3"
        yield {"url": url, "ssl_ca_certs": str(tls[0])}


class RedisContract(MessagingBackendContract, DurableMessagingContract, LargePartsContract):
    """Connections to one server, each test under a prefix of its own."""

    @pytest.fixture
    def settings(self, shared_redis: RedisServer) -> dict[str, Any]:
        return shared_redis.settings

    @pytest.fixture
    def connect(self, settings: dict[str, Any]) -> Iterator[Connect]:
        opened: list[MessagingBackend] = []
        prefix = f"test-{uuid.uuid4().hex}"

        def connect() -> MessagingBackend:
            opened.append(RedisMessagingBackend(**settings, prefix=prefix))
            return opened[-1]

        yield connect
        for backend in reversed(opened):
            backend.cleanup()


class TestRedis(RedisContract):
    """Over TCP, with host, port and db."""

    def test_parts_may_be_larger_than_other_messages(self, backend: MessagingBackend) -> None:
        """An array of 40 MB arrives, text of that size is refused at once."""
        box = Box()
        backend.subscribe(TOPIC, box)
        with pytest.raises(MessageTooLargeError, match=f"{LARGEST:,}"):
            backend.store_message(SPACE, TOPIC, message("x" * 40_000_000))
        backend.store_message(SPACE, TOPIC, with_parts(Repeated(7, 40_000_000)))
        wait_until(lambda: box.messages, 30)
        assert taken(box) == [[bytes([7]) * 40_000_000]]


class TestRedisOverTls(RedisContract):
    """Over TLS, with a password, by URL."""

    @pytest.fixture
    def settings(self, tls_redis: dict[str, Any]) -> dict[str, Any]:
        return tls_redis
