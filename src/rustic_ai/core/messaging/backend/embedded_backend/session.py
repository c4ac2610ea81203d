"""One client's connection as the server's mind sees it."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from rustic_ai.core.messaging.backend.embedded_backend.protocol import HEADER_SIZE, MAX_GREETING
from rustic_ai.core.messaging.backend.embedded_backend.store import Cursor, Topic

if TYPE_CHECKING:
    from rustic_ai.core.messaging.backend.embedded_backend.shared.ring import RingReader


@dataclass(slots=True, eq=False)
class Producer:
    """What is known of a client beyond its connection, so that it sends nothing twice."""

    client: int
    units: int = 0
    """How many of its units are stored, or were refused."""
    session: Session | None = None


Run = tuple[Topic, bytes, Sequence[int], int]
"""Messages for one topic, their ids, and all their flags together."""


class Batch(NamedTuple):
    """What is applied whole or not at all: acknowledgements, and runs of messages."""

    units: int
    acks: Sequence[tuple[Cursor, int]]
    runs: Sequence[Run]
    urgent: bool
    shared: Sequence[Any] = ()
    """Slots that it needs, where it waits for room."""


@dataclass(slots=True, eq=False)
class Session:
    """A connection; `output` waits to be sent.

    Args:
        peer: who it is, for logs.
        trusted: whether the socket proves that it is the same user.
    """

    peer: str
    trusted: bool = True
    greeted: bool = False
    ended: bool = False
    gone: bool = False
    said_goodbye: bool = False
    producer: Producer | None = None
    client: int = 0
    """Who it says it is, while its proof is awaited."""
    channel_of: int = 0
    """The client whose descriptors travel on this connection, and nothing else."""
    brings_ring: bool = False
    """Whether it is one descriptor, that of a ring."""
    ring: RingReader | None = None
    """Through which the client sends while it is looked at."""
    nonces: tuple[bytes, bytes] | None = None
    """The client's and ours, while its proof is awaited."""
    buffer: bytearray = field(default_factory=bytearray)
    wanted: int = HEADER_SIZE
    longest: int = MAX_GREETING
    """Bytes that a frame may have, but for some kinds."""
    output: deque[bytes | memoryview] = field(default_factory=deque)
    output_size: int = 0
    told: int = 0
    cursors: dict[int, Cursor] = field(default_factory=dict)
    lost: dict[int, Cursor] = field(default_factory=dict)
    """Places that another process has taken, by the number that they had here."""
    parked: deque[Batch] = field(default_factory=deque)
    """What waits for room in a topic, in the order of its arrival."""
    parked_at: float = 0.0
