"""The journal: what it costs, and how long a server takes that has a million messages in it."""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from typing import Any

from benchmarks.messaging.processes import Participant
from benchmarks.messaging.raw import Flow, run
from rustic_ai.core.messaging.backend.embedded_backend import EmbeddedMessagingBackend

_TOPIC = "bench:kept"
_ROOMY = {"topic_bytes": 1 << 30, "total_bytes": 1 << 30, "topic_count": 2_000_000}


def flow(kept: Flow, sync: str) -> float:
    """Return deliveries per second of a flow whose server keeps a journal."""
    with tempfile.TemporaryDirectory(prefix="bench-journal-") as folder:
        server = {**kept.server, "data_dir": folder, "sync": sync}
        return run(replace(kept, server=server)).rate


def restart(n: int, repeats: int) -> tuple[list[float], list[float]]:
    """Return seconds from nothing to an answer: with `n` messages in the journal, and with none."""
    with (
        tempfile.TemporaryDirectory(prefix="bench-journal-") as folder,
        tempfile.TemporaryDirectory(prefix="bench-journal-") as empty,
    ):
        _fill(folder, n)
        full, none = [], []
        for _ in range(repeats):
            full.append(_start(folder, wanted=True))
            none.append(_start(empty, wanted=False))
        return full, none


def _open(folder: str) -> EmbeddedMessagingBackend:
    bounds: dict[str, Any] = dict(_ROOMY)
    return EmbeddedMessagingBackend(port=0, data_dir=folder, sync="none", bounds=bounds)


def _fill(folder: str, n: int) -> None:
    backend = _open(folder)
    try:
        port = backend.settings_for_agents()["port"]
        with Participant(
            "raw_roles", role="publish", port=port, transport="unix", topic=_TOPIC, size=200, n=n
        ) as sender:
            sender.hear()
            sender.go()
            sender.hear()
    finally:
        backend.cleanup()


def _start(folder: str, *, wanted: bool) -> float:
    begun = time.perf_counter()
    backend = _open(folder)
    try:
        found = backend.get_next_message_for_topic_since(_TOPIC, 0)
        seconds = time.perf_counter() - begun
        if wanted and found is None:
            raise RuntimeError("the journal was not replayed: its topic is empty")
        return seconds
    finally:
        backend.cleanup()
