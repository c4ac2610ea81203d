"""A client's socket, as the loop of a server keeps it."""

from __future__ import annotations

import socket
from dataclasses import dataclass

from rustic_ai.core.messaging.backend.embedded_backend.session import Session


@dataclass(slots=True, eq=False)
class Connection:
    """A socket and the session it carries."""

    socket: socket.socket
    session: Session
    since: float
    writing: bool = False
    units: int = 0
    """How many units it had sent at `counted_at`."""
    counted_at: float = 0.0
