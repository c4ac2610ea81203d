"""What clients of a model know: what they have sent, read and acknowledged."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from tests.unit.messaging.wire import Peer


@dataclass(eq=False)
class Place:
    """A place in a topic; the server's word on it lies between `low` and `high`."""

    topic: int
    low: int
    """Everything before was acknowledged for sure."""
    high: int
    """Nothing behind was acknowledged by anybody."""
    was_lost: bool = False


@dataclass(eq=False)
class Reading:
    """A subscription as its client sees it."""

    place: Place
    name: str
    window: int
    durable: bool
    next: int = 0

    begins: int | None = None
    """Where it must begin, if that is known."""


class Word(NamedTuple):
    """An acknowledgement that has not counted yet."""

    behind: int
    """The unit that has to be stored first."""
    number: int
    place: Place
    position: int
    in_unit: bool
    """Whether it is part of that unit, and so survives with it."""


@dataclass(eq=False)
class Client:
    """What a client knows of itself: a unit is a list of topics and ids, and its bytes."""

    peer: Peer
    connected: bool = True
    units: list[tuple[list[tuple[int, int]], bytes]] = field(default_factory=list)
    told: int = 0
    readings: dict[int, Reading] = field(default_factory=dict)
    words: list[Word] = field(default_factory=list)
