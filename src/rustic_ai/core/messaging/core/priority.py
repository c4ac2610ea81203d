"""How urgent a message is."""

from __future__ import annotations

from enum import IntEnum


class Priority(IntEnum):
    """Urgency of a message, 0 most urgent; the three highest bits of its id."""

    URGENT = 0
    IMPORTANT = 1
    HIGH = 2
    ABOVE_NORMAL = 3
    NORMAL = 4
    LOW = 5
    VERY_LOW = 6
    LOWEST = 7
