"""What engine and actor say to each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rustic_ai.core.guild.execution.multiprocess.channel import Failed


@dataclass(frozen=True, slots=True)
class Order:
    """What an actor is given; plain enough to be read before the agent's code is importable."""

    launch: bytes
    """The pickled `AgentLaunch`."""
    messaging: bytes
    """The pickled `MessagingConfig`."""
    limits: dict[str, Any]
    sys_path: tuple[str, ...]
    """The program's; what exists on the node is looked at last."""
    runtime_dir: str
    """The program's, where message servers of this machine are found."""
    log_level: int


@dataclass(frozen=True, slots=True)
class Started:
    """An agent is ready: where."""

    pid: int
    node: str
    node_address: str
    machine: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an agent ended that could still tell."""

    exitcode: int
    failure: Failed | None = None
    retiring: str = ""
    message_id: int | None = None
    peak_memory_mb: float | None = None
    cpu_seconds: float | None = None
