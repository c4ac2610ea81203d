"""Topics that every guild has."""

from __future__ import annotations

from typing import ClassVar

from rustic_ai.core.messaging.core.dead_letter import DEAD_LETTER_TOPIC


class GuildTopics:
    """Well-known topics of a guild."""

    DEFAULT_TOPICS: ClassVar[list[str]] = ["default_topic"]
    ERROR_TOPIC: ClassVar[str] = "error_topic"
    """What went wrong in handlers; `system_messages.ErrorMessage`."""
    SYSTEM_TOPIC: ClassVar[str] = "system_topic"
    """From the guild to all of its agents; every agent listens to it."""
    STATUS_TOPIC: ClassVar[str] = "status_topic"
    """From agents to whoever runs the guild: progress, and that the work is done."""

    DEAD_LETTER_TOPIC: ClassVar[str] = DEAD_LETTER_TOPIC
    """Messages that were given up, with the reason; `Message.dead_letter`."""

    @staticmethod
    def get_agent_inbox(agent_id: str) -> str:
        """Return the topic that only this agent listens to."""
        return f"agent_inbox:{agent_id}"
