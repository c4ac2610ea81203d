"""Raw: through the backend API, from publishers to subscribers in processes of their own."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import Any

from benchmarks.messaging.processes import (
    Participant,
    cpu_of,
    memory_of,
    server_of_this_process,
)
from rustic_ai.core.messaging.backend.embedded_backend import EmbeddedMessagingBackend


@dataclass(frozen=True)
class Flow:
    """Who sends how much to whom; `server` are the server's settings.

    `reads`: whether receivers ask who the sender is, which stands in the envelope.
    """

    n: int
    size: int = 200
    publishers: int = 1
    subscribers: int = 1
    transport: str = "unix"
    reads: bool = False
    server: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Flowed:
    """What came of it; CPU in microseconds per message, of one publisher and one subscriber."""

    rate: float
    """Deliveries per second, from the first send to the last message's handling."""
    server_cpu: float
    publisher_cpu: float
    subscriber_cpu: float
    bytes_per_message: float
    """Growth of the server's resident memory, per message stored."""


def run(flow: Flow, profile: str = "") -> Flowed:
    """Start a server and everybody, let them flow, and end them."""
    backend = EmbeddedMessagingBackend(port=0, transport="unix", **flow.server)
    try:
        return _run(flow, backend, profile)
    finally:
        backend.cleanup()


def _run(flow: Flow, backend: EmbeddedMessagingBackend, profile: str) -> Flowed:
    port, server = backend.settings_for_agents()["port"], server_of_this_process()
    each = flow.n // flow.publishers
    common = {"port": port, "transport": flow.transport, "topic": "bench:flow", "size": flow.size}
    with contextlib.ExitStack() as stack:
        takers = [
            stack.enter_context(
                Participant(
                    "raw_roles",
                    role="subscribe",
                    name=f"s{i}",
                    n=each * flow.publishers,
                    reads=flow.reads,
                    profile=profile and f"{profile}.sub{i}",
                    **common,
                )
            )
            for i in range(flow.subscribers)
        ]
        senders = [
            stack.enter_context(
                Participant(
                    "raw_roles",
                    role="publish",
                    n=each,
                    profile=profile and f"{profile}.pub{i}",
                    **common,
                )
            )
            for i in range(flow.publishers)
        ]
        for one in [*takers, *senders]:
            one.hear()
        memory, cpu = memory_of(server), cpu_of(server)
        for one in [*takers, *senders]:
            one.go()
        sent = [one.hear() for one in senders]
        taken = [one.hear() for one in takers]
        memory, cpu = memory_of(server) - memory, cpu_of(server) - cpu
    total = each * flow.publishers
    seconds = max(r["last"] for r in taken) - min(r["begun"] for r in sent)
    return Flowed(
        rate=total * flow.subscribers / seconds,
        server_cpu=cpu / total * 1e6,
        publisher_cpu=sum(r["cpu"] for r in sent) / total * 1e6,
        subscriber_cpu=sum(r["cpu"] for r in taken) / total / flow.subscribers * 1e6,
        bytes_per_message=memory / total,
    )
