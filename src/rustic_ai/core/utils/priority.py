"""How urgent a message is."""

from rustic_ai.core.messaging.core.priority import Priority

__all__ = ["Priority"]
