"""Configuration of the embedded backend."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from rustic_ai.core.errors import MessagingConfigError
from rustic_ai.core.messaging.core.capabilities import Capabilities

CAPABILITIES = Capabilities(
    processes=True,
    machines=True,
    redelivery=True,
    steps=True,
    fencing=True,
    back_pressure=True,
    restarts=True,
    lanes=True,
    trusted=True,
)

EMBEDDED_SERVER_PORT = 31134
SHARED_MEMORY = 512 << 20
"""Bytes of shared memory that a client may have for what it sends, unless told otherwise."""

Sync = Literal["none", "interval", "group"]
"""When a journal is forced to the disk: never by us, every 50 ms, or before each word."""
Overflow = Literal["block", "error", "drop_oldest"]
"""What happens to a message for a topic that is full of what a subscriber still wants."""


def create_embedded_messaging_config(
    host: str = "localhost",
    port: int = EMBEDDED_SERVER_PORT,
    *,
    auto_start_server: bool = True,
    priority_lanes: bool = False,
    **settings: Any,
) -> dict[str, Any]:
    """Return the messaging configuration of the embedded backend.

    Args:
        host: where the server listens.
        port: its port; 0 starts a server of one's own on a free port.
        auto_start_server: whether the first program that needs it starts it; later ones find it.
        priority_lanes: whether urgent messages overtake others; else topics keep their order.
        settings: more of `EmbeddedMessagingBackend`, such as `data_dir` or `overflow`.
    """
    return {
        "backend_module": "rustic_ai.core.messaging.backend.embedded_backend",
        "backend_class": "PriorityLanesMessagingBackend"
        if priority_lanes
        else "EmbeddedMessagingBackend",
        "backend_config": {
            "host": host,
            "port": port,
            "auto_start_server": auto_start_server,
            **{k: str(v) if isinstance(v, Path) else v for k, v in settings.items()},
        },
    }


def token_from(text: str | None) -> bytes | None:
    """Read a token that stands in a configuration.

    Raises:
        MessagingConfigError: it is no token.
    """
    try:
        return bytes.fromhex(text) if text is not None else None
    except ValueError as e:
        raise MessagingConfigError(
            summary="backend_config['token'] does not consist of hexadecimal digits",
            hint="copy the content of the server's token file",
        ) from e
