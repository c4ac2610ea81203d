"""A consumer that was stopped, beside a publisher at full speed and a consumer that keeps up."""

from __future__ import annotations

import contextlib
import signal
import time
from dataclasses import dataclass

from benchmarks.messaging.processes import Participant, memory_of, server_of_this_process
from rustic_ai.core.messaging.backend.embedded_backend import EmbeddedMessagingBackend

PENDING = 32 << 20
"""Bytes that the server keeps for who lags behind, here."""
_BOUNDS: dict[str, float] = {"pending": PENDING, "topic_bytes": 16 << 20, "total_bytes": 64 << 20}
_LOOK = 0.1


@dataclass(frozen=True)
class Beside:
    """How it went; bytes of the server's resident memory above those at its start."""

    rate: float
    """Messages per second of the consumer that keeps up."""
    peak: int
    growth: int
    """From the middle of the time to its end."""


def run(seconds: float, *, stopped: bool) -> Beside:
    """Publish for so many seconds; `stopped`: with a second consumer that gets SIGSTOP."""
    backend = EmbeddedMessagingBackend(
        port=0, transport="unix", overflow="drop_oldest", bounds=dict(_BOUNDS)
    )
    try:
        return _run(backend, seconds, stopped=stopped)
    finally:
        backend.cleanup()


def _run(backend: EmbeddedMessagingBackend, seconds: float, *, stopped: bool) -> Beside:
    server = server_of_this_process()
    common = {
        "port": backend.settings_for_agents()["port"],
        "transport": "unix",
        "topic": "bench:slow",
        "size": 200,
        "n": 1 << 40,
    }
    with contextlib.ExitStack() as stack:
        fast = stack.enter_context(
            Participant("raw_roles", role="subscribe", name="fast", seconds=seconds, **common)
        )
        sender = stack.enter_context(
            Participant("raw_roles", role="publish", seconds=seconds + 1, **common)
        )
        everybody = [fast, sender]
        if stopped:
            lame = stack.enter_context(
                Participant("raw_roles", role="subscribe", name="stopped", **common)
            )
            everybody.append(lame)
        for one in everybody:
            one.hear()
        if stopped:
            lame.go()
            time.sleep(0.2)
            lame.signal(signal.SIGSTOP)
        before = memory_of(server)
        fast.go()
        sender.go()
        seen = []
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            time.sleep(_LOOK)
            seen.append(memory_of(server) - before)
        told = fast.hear()
        sender.hear()
    half = max(seen[: len(seen) // 2])
    return Beside(
        rate=told["n"] / (told["last"] - told["first"]),
        peak=max(seen),
        growth=max(seen[len(seen) // 2 :]) - half,
    )
