"""An address says which backend, and where."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from rustic_ai.core.errors import MessagingConfigError
from rustic_ai.core.guild import GuildBuilder
from rustic_ai.core.messaging import InMemoryMessagingBackend
from rustic_ai.core.messaging.core.messaging_config import MessagingConfig


@pytest.mark.parametrize(
    ("url", "backend", "settings"),
    [
        ("memory://", "InMemoryMessagingBackend", {}),
        ("embedded://", "EmbeddedMessagingBackend", {}),
        (
            "embedded://127.0.0.1:5000?sync=group&data_dir=/d",
            "EmbeddedMessagingBackend",
            {"host": "127.0.0.1", "port": 5000, "sync": "group", "data_dir": "/d"},
        ),
        *(
            (url, "RedisMessagingBackend", {"url": url})
            for url in ("redis://h:1/2", "rediss://u:p@h", "unix:///run/redis.sock?db=1")
        ),
        ("nats://h:4222", "NatsMessagingBackend", {"servers": "nats://h:4222"}),
        ("tls://h", "NatsMessagingBackend", {"servers": "tls://h"}),
    ],
)
def test_addresses(url: str, backend: str, settings: dict[str, Any]) -> None:
    """Each scheme has its backend, which gets what the address says."""
    config = MessagingConfig.of(url)
    assert config.backend_class == backend
    assert config.backend_config == settings
    assert MessagingConfig.model_validate(url) == config


def test_an_address_does_where_a_configuration_does() -> None:
    """A builder takes it, and its backend can be made."""
    spec = GuildBuilder(guild_name="g").set_messaging("memory://").build_spec()
    assert spec.properties.messaging is not None
    assert isinstance(spec.properties.messaging.create_backend(), InMemoryMessagingBackend)


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("rediz://h", r"'rediz://h' begins with none of .*\n.*did you mean redis://"),
        ("http://h", "'http://h' begins with none of memory://, embedded://, redis://"),
        ("redis", "'redis' begins with none of"),
        ("redis://h:port", "'redis://h:port' cannot be read: Port could not be cast"),
        ("nats://h:70000", "cannot be read: Port out of range"),
        ("embedded://h?prot=1", r"no setting 'prot' in an address \(there are: transport"),
    ],
)
def test_addresses_that_are_none(url: str, text: str) -> None:
    """They are refused with what is wrong, also inside a specification."""
    with pytest.raises(MessagingConfigError, match=text):
        MessagingConfig.of(url)
    with pytest.raises(ValidationError, match=text):
        MessagingConfig.model_validate(url)


def test_what_is_neither() -> None:
    """Another type is refused by its name."""
    wrong: Any = 5
    with pytest.raises(MessagingConfigError, match=r"an address like 'redis://.*not a int"):
        MessagingConfig.of(wrong)
