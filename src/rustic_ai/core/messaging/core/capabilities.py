"""What a backend can beyond the contract that all of them keep."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Capabilities:
    """Declared by each backend class; `docs/backends.md` has them side by side."""

    processes: bool = False
    """Agents in other processes are reached."""
    machines: bool = False
    """Agents on other machines are reached."""
    redelivery: bool = False
    """A message in hand at a crash comes again at once, counted, and becomes a dead letter."""
    steps: bool = False
    """What a handler sends, and the word that its message was handled, take effect as one."""
    fencing: bool = False
    """Who has lost its place to another process cannot store anything more in its steps."""
    back_pressure: bool = False
    """A publisher waits, or is told, where subscribers do not keep up."""
    restarts: bool = False
    """What is stored outlives the store's end, where it is so configured."""
    lanes: bool = False
    """Urgent messages overtake others, where it is so configured."""
    trusted: bool = False
    """Everybody who can publish is the same user, proven to be: then pickles may travel."""
