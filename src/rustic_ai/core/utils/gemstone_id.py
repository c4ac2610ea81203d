"""Sortable message ids."""

from rustic_ai.core.messaging.core.message_id import GemstoneGenerator, GemstoneID

__all__ = ["GemstoneGenerator", "GemstoneID"]
