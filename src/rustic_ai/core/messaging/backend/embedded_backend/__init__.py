"""Messages through a small server of our own: nothing to install, works across processes."""

from typing import TYPE_CHECKING

from rustic_ai.core._lazy import lazy_exports
from rustic_ai.core.messaging.backend.embedded_backend.config import (
    EMBEDDED_SERVER_PORT,
    create_embedded_messaging_config,
)

if TYPE_CHECKING:
    from rustic_ai.core.messaging.backend.embedded_backend.backend import EmbeddedMessagingBackend
    from rustic_ai.core.messaging.backend.embedded_backend.lanes import (
        PriorityLanesMessagingBackend,
    )
    from rustic_ai.core.messaging.backend.embedded_backend.server import EmbeddedServer

__all__ = [
    "EMBEDDED_SERVER_PORT",
    "EmbeddedMessagingBackend",
    "EmbeddedServer",
    "PriorityLanesMessagingBackend",
    "create_embedded_messaging_config",
]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "EMBEDDED_SERVER_PORT": "rustic_ai.core.messaging.backend.embedded_backend.config",
        "EmbeddedMessagingBackend": "rustic_ai.core.messaging.backend.embedded_backend.backend",
        "EmbeddedServer": "rustic_ai.core.messaging.backend.embedded_backend.server",
        "PriorityLanesMessagingBackend": "rustic_ai.core.messaging.backend.embedded_backend.lanes",
        "create_embedded_messaging_config": (
            "rustic_ai.core.messaging.backend.embedded_backend.config"
        ),
    },
)
