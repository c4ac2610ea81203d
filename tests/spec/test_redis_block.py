"""The specification's Redis block, with a server behind it."""

from __future__ import annotations

from rustic_ai.core.guild import Guild
from rustic_ai.core.guild.execution.multiprocess import MultiProcessExecutionEngine
from rustic_ai.core.messaging import MessagingConfig
from rustic_ai.core.testing.agents import MultiplyingAgent, Number
from tests.redis_server import RedisServer, shared_redis_fixture
from tests.spec.snippets import run, snippet
from tests.support import spec_of

__all__ = ["shared_redis_fixture"]


def test_the_redis_block_works(shared_redis: RedisServer) -> None:
    """Word for word but for its port, which is that of a server of the test's own."""
    block = snippet("Messaging Configuration")
    assert '"host": "localhost", "port": 6379, "db": 0' in block
    config = run(block.replace("6379", str(shared_redis.port)))["messaging_config"]
    assert isinstance(config, MessagingConfig)
    with (
        MultiProcessExecutionEngine("spec-on-redis", max_processes=1) as engine,
        Guild("spec-on-redis", engine, config) as guild,
    ):
        guild.launch_agent(spec_of(MultiplyingAgent, "m", factor=3))
        assert guild.request(Number(value=14), timeout=20).payload["value"] == 42
        assert "spec-on-redis:default_topic" in guild.get_messaging_statistics()["topics"]
