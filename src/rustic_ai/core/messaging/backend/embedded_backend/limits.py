"""What a server refuses."""

from __future__ import annotations

from dataclasses import dataclass

from rustic_ai.core.messaging.backend.embedded_backend.protocol import MAX_FRAME, MAX_PAYLOAD


@dataclass(frozen=True, slots=True)
class Limits:
    """What a server refuses. Sizes in bytes, time in seconds."""

    max_frame: int = MAX_FRAME
    max_payload: int = MAX_PAYLOAD
    topics: int = 100_000
    subscriptions: int = 4096
    """Of one connection."""
    producers: int = 10_000
    """Clients that are remembered without a connection."""
    wait_for_room: float = 25.0
    """How long a message may wait for room in its topic."""
