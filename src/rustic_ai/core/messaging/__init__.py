"""Messages and how they travel."""

from typing import TYPE_CHECKING

from rustic_ai.core._lazy import lazy_exports

if TYPE_CHECKING:
    from rustic_ai.core.messaging.backend.in_memory_backend import InMemoryMessagingBackend
    from rustic_ai.core.messaging.client.client import Client, SimpleClient
    from rustic_ai.core.messaging.core.envelope import AgentTag
    from rustic_ai.core.messaging.core.message import JsonDict, Message, MessageConstants
    from rustic_ai.core.messaging.core.messaging_backend import MessagingBackend
    from rustic_ai.core.messaging.core.messaging_config import MessagingConfig
    from rustic_ai.core.messaging.core.messaging_interface import MessagingInterface
    from rustic_ai.core.messaging.core.priority import Priority

__all__ = [
    "AgentTag",
    "Client",
    "InMemoryMessagingBackend",
    "JsonDict",
    "Message",
    "MessageConstants",
    "MessagingBackend",
    "MessagingConfig",
    "MessagingInterface",
    "Priority",
    "SimpleClient",
]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "AgentTag": "rustic_ai.core.messaging.core.envelope",
        "Client": "rustic_ai.core.messaging.client.client",
        "InMemoryMessagingBackend": "rustic_ai.core.messaging.backend.in_memory_backend",
        "JsonDict": "rustic_ai.core.messaging.core.message",
        "Message": "rustic_ai.core.messaging.core.message",
        "MessageConstants": "rustic_ai.core.messaging.core.message",
        "MessagingBackend": "rustic_ai.core.messaging.core.messaging_backend",
        "MessagingConfig": "rustic_ai.core.messaging.core.messaging_config",
        "MessagingInterface": "rustic_ai.core.messaging.core.messaging_interface",
        "Priority": "rustic_ai.core.messaging.core.priority",
        "SimpleClient": "rustic_ai.core.messaging.client.client",
    },
)
