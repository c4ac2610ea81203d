"""Redis and NATS through our backends, to stand beside their bare clients."""

from __future__ import annotations

import contextlib

from benchmarks.messaging import peers_nats, peers_redis
from benchmarks.messaging.processes import Participant


def redis(n: int, subscribers: int = 1) -> float:
    """Return deliveries per second through `RedisMessagingBackend`."""
    with peers_redis.server() as path:
        return _run(f"unix://{path}", n, subscribers)


def nats(n: int, subscribers: int = 1) -> float:
    """Return deliveries per second through `NatsMessagingBackend`, kept in memory as the peer's."""
    with peers_nats.server() as port:
        store = {
            "backend_module": "rustic_ai.nats.messaging",
            "backend_class": "NatsMessagingBackend",
            "backend_config": {"servers": f"nats://127.0.0.1:{port}", "storage": "memory"},
        }
        return _run(store, n, subscribers)


def _run(store: str | dict[str, object], n: int, subscribers: int) -> float:
    common = {"store": store, "topic": "bench:flow", "size": 200, "n": n}
    with contextlib.ExitStack() as stack:
        takers = [
            stack.enter_context(Participant("raw_roles", role="subscribe", name=f"s{i}", **common))
            for i in range(subscribers)
        ]
        sender = stack.enter_context(Participant("raw_roles", role="publish", **common))
        for one in [*takers, sender]:
            one.hear()
        for one in [*takers, sender]:
            one.go()
        begun = float(sender.hear()["begun"])
        ended = max(float(one.hear()["last"]) for one in takers)
    return n * subscribers / (ended - begun)
