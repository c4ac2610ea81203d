"""`kill -9` at random of publisher, relay, subscriber and server: the promises hold.

RUSTIC_CHAOS_ROUNDS says how many kills there are over all of the first tests together, and
RUSTIC_CHAOS_SEED repeats the choices of a failed run, if not its timing.
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rustic_ai.core.messaging.backend.embedded_backend import EmbeddedMessagingBackend
from rustic_ai.core.messaging.backend.embedded_backend.access import clean_dead
from rustic_ai.core.testing.contracts.messaging_backend import SPACE, TOPIC, Box, message
from rustic_ai.core.testing.waiting import wait_until
from tests.chaos import BOUNDS, Broker, Chaos, OwnedBroker, ServerProgram, seeded

ROUNDS = int(os.environ.get("RUSTIC_CHAOS_ROUNDS", "15"))
CLIENTS = ["publisher", "relay", "sink"]
ALL = [*CLIENTS, "broker"]
VARIANTS: list[tuple[str, list[str], str | None, int]] = [
    ("memory", CLIENTS, None, 1),
    ("none", ALL, "none", 20),
    ("interval", ALL, "interval", 1),
    ("group", ALL, "group", 20),
    ("auto-start", ALL, "interval", 20),
]


@pytest.mark.timeout(60 + 2 * ROUNDS)
@pytest.mark.parametrize(
    ("name", "roles", "sync", "batch"), VARIANTS, ids=[name for name, *_ in VARIANTS]
)
def test_chaos(
    free_port: int, tmp_path: Path, name: str, roles: list[str], sync: str | None, batch: int
) -> None:
    """Nothing acknowledged is lost, nothing is out of order, and STEP does nothing twice.

    Without a journal only clients are killed: a server that keeps everything in memory takes it
    along. With one it is killed too, whoever starts it again.
    """
    settings: dict[str, Any] = {"bounds": BOUNDS}
    if sync is not None:
        settings |= {"data_dir": str(tmp_path / "journal"), "sync": sync}
    make: Callable[[int, dict[str, Any]], Broker]
    make = OwnedBroker if name == "auto-start" else ServerProgram
    seed = int(os.environ.get("RUSTIC_CHAOS_SEED", random.SystemRandom().getrandbits(32)))
    chaos = Chaos(make(free_port, settings), free_port, tmp_path, batch, seed)
    with seeded(seed, chaos.kills), chaos:
        for _ in range(-(-ROUNDS // len(VARIANTS))):
            chaos.kill_one(roles)
        chaos.finish()
        checked = chaos.check()
        print(f"{name}: {checked} messages, kills {chaos.kills}")
        assert checked > 0


@pytest.mark.parametrize("kills", [1, 3])
def test_a_server_killed_in_the_middle_of_pipelined_messages(
    free_port: int, tmp_path: Path, kills: int
) -> None:
    """Of 10,000 messages that nobody waited for, each is stored once, and in order."""
    server = ServerProgram(free_port, {"data_dir": str(tmp_path)})
    publisher = EmbeddedMessagingBackend(port=free_port, auto_start_server=False)
    killers = {(n + 1) * 10_000 // (kills + 1) for n in range(kills)}
    threads = []
    for n in range(10_000):
        publisher.send_message(SPACE, TOPIC, message(str(n)))
        if n in killers:  # the publisher does not wait for that either
            for thread in threads:
                thread.join()
            threads.append(threading.Thread(target=server.kill))
            threads[-1].start()
    threads[-1].join()
    publisher.store_message(SPACE, TOPIC, message("end"))
    found = [m.payload["text"] for m in publisher.get_messages_for_topic(TOPIC)]
    assert found == [*map(str, range(10_000)), "end"]
    publisher.cleanup()
    server.close()


def test_a_server_killed_before_a_client_has_waited_at_its_end(
    free_port: int, tmp_path: Path
) -> None:
    """`cleanup` waits for what was sent: a server killed meanwhile gets it at its return."""
    server = ServerProgram(free_port, {"data_dir": str(tmp_path)})
    publisher = EmbeddedMessagingBackend(port=free_port, auto_start_server=False)
    publisher.store_message(SPACE, TOPIC, message("first"))
    server.process.kill()
    publisher.send_message(SPACE, TOPIC, message("second"))
    closing = threading.Thread(target=publisher.cleanup)
    closing.start()
    server.kill()
    closing.join()
    reader = EmbeddedMessagingBackend(port=free_port, auto_start_server=False)
    found = [m.payload["text"] for m in reader.get_messages_for_topic(TOPIC)]
    assert found == ["first", "second"]
    reader.cleanup()
    server.close()


def test_clients_outlive_a_server_without_a_journal(free_port: int) -> None:
    """What it had is gone with it; its clients go on by themselves with the next one.

    A subscription is there again before anything is published anew, so nothing new is missed.
    """
    server = ServerProgram(free_port, {})
    publisher = EmbeddedMessagingBackend(port=free_port, auto_start_server=False)
    subscriber = EmbeddedMessagingBackend(port=free_port, auto_start_server=False)
    box = Box()
    subscriber.subscribe(TOPIC, box, subscriber="s", durable=True)
    subscriber.start()
    for n in range(3):
        publisher.store_message(SPACE, TOPIC, message(f"before {n}"))
        box.wait(*(f"{when} {i}" for i in range(n) for when in ("before", "after")), f"before {n}")
        server.kill()
        publisher.store_message(SPACE, TOPIC, message(f"after {n}"))
        wait_until(lambda n=n: box.texts[-1] == f"after {n}")  # type: ignore[misc]
        found = [m.payload["text"] for m in publisher.get_messages_for_topic(TOPIC)]
        assert found == [f"after {n}"]
    subscriber.cleanup()
    publisher.cleanup()
    server.close()
    clean_dead()
