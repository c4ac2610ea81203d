"""Configuration of the embedded backend."""

from __future__ import annotations

from typing import Any

EMBEDDED_SERVER_PORT = 31134


def create_embedded_messaging_config(
    host: str = "localhost", port: int = EMBEDDED_SERVER_PORT, *, auto_start_server: bool = True
) -> dict[str, Any]:
    """Return the messaging configuration of the embedded backend.

    Args:
        host: where the server listens.
        port: its port; 0 starts a server of one's own on a free port.
        auto_start_server: whether the first program that needs it starts it; later ones find it.
    """
    return {
        "backend_module": "rustic_ai.core.messaging.backend.embedded_backend",
        "backend_class": "EmbeddedMessagingBackend",
        "backend_config": {"host": host, "port": port, "auto_start_server": auto_start_server},
    }
