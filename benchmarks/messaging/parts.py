"""What one run measures, part by part, and what it must come to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from benchmarks.messaging import (
    agents,
    budget,
    floors,
    foreign,
    journal,
    large,
    peers_nats,
    peers_queue,
    peers_redis,
    slow,
)
from benchmarks.messaging.raw import Flow, run
from benchmarks.messaging.report import Measurement, Target, percentile
from benchmarks.peers.looks import Look

_Values = Sequence[tuple[str, str, float]]
_RATE = "msg/s"
_BOUND = slow.PENDING
_KNOWN = 600_000.0
"""What a bare loop of `send` did where the targets come from: 150 and 300 thousand a second."""
_WARM_UP = 3
"""Trips of arrays that are not counted: the pages of a slot are touched first then."""
_COUNTED = "  of it counted in targets"


@dataclass(frozen=True)
class Scale:
    """How much is sent; every count is a multiple of it."""

    n: int
    pings: int
    slow_seconds: float
    restarts: int


QUICK = Scale(n=100_000, pings=2_000, slow_seconds=8, restarts=3)
FULL = Scale(n=400_000, pings=10_000, slow_seconds=60, restarts=7)


def _rate(name: str, work: Callable[[], float], unit: str = _RATE) -> Callable[[], _Values]:
    return lambda: [(name, unit, work())]


def _floors(scale: Scale) -> list[Measurement]:
    section = "Floors"

    def send() -> _Values:
        rate = floors.send_loop(3 * scale.n)
        return [("send loop", _RATE, rate), (_COUNTED, _RATE, min(rate, _KNOWN))]

    found = [Measurement(section, "send loop", send)]
    for name, core in (("relay, one core", 0), ("relay, free", None)):
        found.append(
            Measurement(section, name, _trips(name, partial(floors.relay, scale.pings, core)))
        )
    return found


def _budget(_: Scale) -> list[Measurement]:
    def measured() -> _Values:
        steps = budget.steps()
        return [
            *((name, "us", us) for name, us in steps.items()),
            ("at most, on all cores, if there was nothing else", _RATE, budget.bound(steps)),
        ]

    section = "What a typed message costs whoever carries it, within handlers, hot"
    return [Measurement(section, "budget", measured)]


def _trips(name: str, work: Callable[[], Sequence[float]]) -> Callable[[], _Values]:
    def measured() -> _Values:
        seconds = work()
        return [
            (f"{name}, p50", "us", percentile(seconds, 0.5) * 1e6),
            (f"{name}, p99", "us", percentile(seconds, 0.99) * 1e6),
        ]

    return measured


def _raw(scale: Scale) -> list[Measurement]:
    n = scale.n
    flows = {
        "raw 1 to 1": Flow(2 * n),
        "raw 1 to 1, TCP": Flow(2 * n, transport="tcp"),
        "raw fan-in 4 to 1": Flow(2 * n, publishers=4),
        "raw fan-out 1 to 8": Flow(n // 2, subscribers=8),
        "raw fan-out 1 to 8, envelopes read": Flow(n // 2, subscribers=8, reads=True),
        "raw 1 to 1, 10 kB": Flow(n // 4, size=10_000),
        "raw 1 to 1, 1 MB": Flow(n // 500, size=1_000_000),
    }
    return [Measurement("Raw", name, _flow(name, flow)) for name, flow in flows.items()]


def _flow(name: str, flow: Flow) -> Callable[[], _Values]:
    def measured() -> _Values:
        done = run(flow)
        values = [(name, _RATE, done.rate)]
        if name == "raw 1 to 1":
            values += [
                ("  CPU of publisher", "us/msg", done.publisher_cpu),
                ("  CPU of server", "us/msg", done.server_cpu),
                ("  CPU of subscriber", "us/msg", done.subscriber_cpu),
                ("  server memory per stored message", "byte", done.bytes_per_message),
            ]
        return values

    return measured


def _agents(scale: Scale) -> list[Measurement]:
    section, n = "Agent to agent, typed processors", scale.n
    found = [
        Measurement(section, name, _talk(name, n=count, free=free, sinks=sinks))
        for name, count, free, sinks in (
            ("agents, free-running", n, True, 1),
            ("agents, within handlers", 2 * n, False, 1),
            ("agents, free-running, fan-out 1 to 8", n // 5, True, 8),
        )
    ]
    for name, core in (("agents, round trip, one core", 0), ("agents, round trip, free", None)):
        found.append(
            Measurement(section, name, _trips(name, partial(agents.ping, scale.pings, core)))
        )
    return found


def _talk(name: str, *, n: int, free: bool, sinks: int) -> Callable[[], _Values]:
    def measured() -> _Values:
        done = agents.talk(n, free=free, sinks=sinks)
        return [
            (name, _RATE, done.rate),
            (f"  {name}: CPU of source", "us/msg", done.source_cpu),
            (f"  {name}: CPU of server", "us/msg", done.server_cpu),
            (f"  {name}: CPU of sink", "us/msg", done.sink_cpu),
        ]

    return measured


def _large(scale: Scale) -> list[Measurement]:
    ways: tuple[tuple[str, dict[str, bool]], ...] = (
        ("in the message, summed", {"shared": False}),
        ("in shared memory, summed", {}),
        ("written in place, looked at", {"in_place": True}),
    )
    found = []
    for label, size, n in (
        ("10 kB", 10_000, scale.n // 2_000),
        ("1 MB", 1_000_000, scale.n // 1_000),
        ("10 MB", 10_000_000, scale.n // 5_000),
        ("100 MB", 100_000_000, scale.n // 10_000),
    ):
        for way, options in ways:
            name = f"{label}, {way}"
            found.append(Measurement("Large arrays", name, _handed(name, n, size, options)))
    return found


def _handed(name: str, n: int, size: int, options: dict[str, bool]) -> Callable[[], _Values]:
    def measured() -> _Values:
        look: Look = "last" if "in_place" in options else "sum"
        seconds = large.hand_over(n + _WARM_UP, size, look, **options)[_WARM_UP:]
        return [(name, "us", percentile(seconds, 0.5) * 1e6)]

    return measured


def _journal(scale: Scale) -> list[Measurement]:
    section, flow = "Journal", Flow(2 * scale.n)
    found = [
        Measurement(
            section,
            f"raw 1 to 1, journal {sync}",
            _rate(f"raw 1 to 1, journal {sync}", partial(journal.flow, flow, sync)),
        )
        for sync in ("none", "interval", "group")
    ]

    def restarts() -> _Values:
        full, empty = journal.restart(1_000_000, scale.restarts)
        return [("restart with 1,000,000 messages", "s", one) for one in full] + [
            ("restart with none", "s", one) for one in empty
        ]

    return [*found, Measurement(section, "restart with 1,000,000 messages", restarts, repeats=1)]


def _peers(scale: Scale) -> list[Measurement]:
    n = scale.n
    rates: dict[str, Callable[[], float]] = {
        "Redis streams, XREADGROUP + XACK": lambda: peers_redis.run(n),
        "Redis streams, through our backend": lambda: foreign.redis(n),
        "Redis streams, fan-out 1 to 8": lambda: peers_redis.run(n // 2, subscribers=8),
        "NATS JetStream, acknowledged": lambda: peers_nats.run(n // 4, jetstream=True),
        "NATS JetStream, through our backend": lambda: foreign.nats(n // 4),
        "NATS core (keeps nothing)": lambda: peers_nats.run(n, jetstream=False),
        "NATS core, fan-out 1 to 8": lambda: peers_nats.run(n // 2, jetstream=False, subscribers=8),
        "multiprocessing.Queue (keeps nothing)": lambda: peers_queue.run(n),
    }
    return [Measurement("Peers", name, _rate(name, work)) for name, work in rates.items()]


def _slow(scale: Scale) -> list[Measurement]:
    def measured(name: str, *, stopped: bool) -> Callable[[], _Values]:
        def one() -> _Values:
            done = slow.run(scale.slow_seconds, stopped=stopped)
            return [
                (name, _RATE, done.rate),
                (f"  {name}: peak growth of the server", "MB", done.peak / 1e6),
                (f"  {name}: of it in the second half", "MB", done.growth / 1e6),
            ]

        return one

    section = f"Slow consumer, {scale.slow_seconds:g} s at full speed, drop_oldest"
    # The same pair twice, so that a drift of the machine shows as a range, not as a difference.
    return [
        Measurement(section, name, measured(name, stopped=stopped), repeats=2)
        for name, stopped in (("beside nobody", False), ("beside a stopped consumer", True))
    ] + [
        Measurement(
            section, "bound", _rate("bound for what is pending", lambda: _BOUND / 1e6, "MB"), 1
        )
    ]


PARTS: dict[str, Callable[[Scale], list[Measurement]]] = {
    "floors": _floors,
    "budget": _budget,
    "raw": _raw,
    "agents": _agents,
    "large": _large,
    "peers": _peers,
    "journal": _journal,
    "slow": _slow,
}

_REDIS = "Redis streams, XREADGROUP + XACK"
TARGETS = (
    Target("raw 1 to 1 / Redis streams, acknowledged", "raw 1 to 1", _REDIS, at_least=2),
    Target("agents free-running / bare send loop", "agents, free-running", _COUNTED, 0.25),
    Target("agents within handlers / bare send loop", "agents, within handlers", _COUNTED, 0.5),
    Target(
        "agents' round trip / relay of three processes, one core, p50",
        "agents, round trip, one core, p50",
        "relay, one core, p50",
        at_most=2.5,
    ),
    Target(
        "raw fan-out 8 / Redis streams fan-out 8",
        "raw fan-out 1 to 8",
        "Redis streams, fan-out 1 to 8",
        at_least=4,
    ),
    Target(
        "Redis through our backend / bare client",
        "Redis streams, through our backend",
        _REDIS,
        at_least=1 / 1.5,
    ),
    Target(
        "NATS through our backend / bare client",
        "NATS JetStream, through our backend",
        "NATS JetStream, acknowledged",
        at_least=1 / 1.5,
    ),
    Target(
        "1 MB in shared memory / in the message",
        "1 MB, in shared memory, summed",
        "1 MB, in the message, summed",
        at_most=1 / 2,
    ),
    Target(
        "10 MB in shared memory / in the message",
        "10 MB, in shared memory, summed",
        "10 MB, in the message, summed",
        at_most=1 / 5,
    ),
    Target("journal interval / none", "raw 1 to 1, journal interval", "raw 1 to 1", at_least=0.5),
    Target("restart with 1,000,000 messages, s", "restart with 1,000,000 messages", "", at_most=1),
    Target(
        "beside a stopped consumer / beside nobody",
        "beside a stopped consumer",
        "beside nobody",
        at_least=0.85,
    ),
    Target(
        "the server's memory beside it / bound for what is pending",
        "  beside a stopped consumer: peak growth of the server",
        "bound for what is pending",
        at_most=2,
    ),
)
