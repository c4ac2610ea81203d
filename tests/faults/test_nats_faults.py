"""NATS: killed, stopped and slow subscribers, and a server that is killed."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from rustic_ai.core.errors import (
    BackendUnavailableError,
)
from rustic_ai.core.messaging.core.dead_letter import DEAD_LETTER_TOPIC
from rustic_ai.core.messaging.core.message import Message
from rustic_ai.core.messaging.core.stop_signal import StopSignal
from rustic_ai.core.testing.contracts.messaging_backend import SPACE, TOPIC, Box, message
from rustic_ai.core.testing.waiting import wait_until
from tests.nats_server import (
    NatsConnect,
    NatsServer,
    nats_connect,
    nats_server,
    nats_settings,
    publish,
    texts_of,
)
from tests.support import start_program

__all__ = ["nats_connect", "nats_server", "nats_settings"]

OUT = "space:out"


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[NatsServer]:
    """Give a server that may be killed."""
    with NatsServer(tmp_path) as server:
        yield server


class Relay:
    """The program `nats_subscriber.py`, and its log."""

    def __init__(self, settings: dict[str, Any], log: Path, max_attempts: int = 0) -> None:
        self.log = log
        self.process = start_program("nats_subscriber.py", json.dumps(settings), log, max_attempts)

    def wait(self, *lines: str) -> None:
        """Wait until its log, also of its former lives, has exactly these lines."""
        wait_until(lambda: self.log.exists() and len(self.lines) >= len(lines), timeout=20)
        assert self.lines == list(lines)

    @property
    def lines(self) -> list[str]:
        return self.log.read_text().splitlines()

    def end(self, signum: int) -> str:
        """Send it a signal and collect it; returns its output."""
        if self.process.poll() is None:
            self.process.send_signal(signum)
        return self.process.communicate(timeout=20)[0]


@pytest.fixture
def relay(nats_settings: dict[str, Any], tmp_path: Path) -> Iterator[Callable[..., Relay]]:
    """Give a function that starts a relay; all end with the test."""
    started: list[Relay] = []

    def start(max_attempts: int = 0) -> Relay:
        started.append(Relay(nats_settings, tmp_path / "relay.log", max_attempts))
        return started[-1]

    yield start
    for one in started:
        one.end(signal.SIGKILL)


# Subscribers


def test_what_a_killed_subscriber_had_in_hand_comes_again(
    nats_settings: dict[str, Any], nats_connect: NatsConnect, relay: Callable[..., Relay]
) -> None:
    """First and at once, with its attempt; what it had sent was not; then the rest, in order."""
    backend, box = nats_connect(**nats_settings), Box()
    publish(backend, "1")
    killed = relay()
    wait_until(lambda: texts_of(backend, OUT) == ["1"], timeout=20)
    publish(backend, "hang", *map(str, range(2, 100)))
    killed.wait("1 1", "hang 1")
    killed.end(signal.SIGKILL)
    begun = time.monotonic()
    backend.subscribe(TOPIC, box, subscriber="relay", durable=True)
    backend.start()
    box.wait("hang", *map(str, range(2, 100)))
    assert time.monotonic() - begun < 5
    assert box.messages[0].attempt == 2
    assert texts_of(backend, OUT) == ["1"]


def test_a_poison_message_becomes_a_dead_letter(
    nats_settings: dict[str, Any], nats_connect: NatsConnect, relay: Callable[..., Relay]
) -> None:
    """After `max_attempts` crashes it lies there with its reason, and the next one is handled."""
    backend = nats_connect(**nats_settings)
    publish(backend, "1")
    one = relay(max_attempts=3)
    wait_until(lambda: texts_of(backend, OUT) == ["1"], timeout=20)
    publish(backend, "die", "2")
    expected = ["1 1"]
    for attempt in (1, 2, 3):
        if attempt > 1:
            one = relay(max_attempts=3)
        expected.append(f"die {attempt}")
        one.wait(*expected)
        one.end(signal.SIGKILL)
    last = relay(max_attempts=3)
    wait_until(lambda: texts_of(backend, OUT) == ["1", "2"], timeout=20)
    assert last.lines[:-1] == expected
    (dead,) = backend.get_messages_for_topic(f"{SPACE}:{DEAD_LETTER_TOPIC}")
    assert dead.payload["text"] == "die"
    assert dead.dead_letter is not None
    assert (dead.dead_letter.subscriber, dead.dead_letter.attempts) == ("relay", 3)
    assert "its process was lost 3 times" in dead.dead_letter.reason
    last.end(signal.SIGTERM)


def test_who_takes_leave_has_not_crashed(
    nats_settings: dict[str, Any], nats_connect: NatsConnect, relay: Callable[..., Relay]
) -> None:
    """An ended subscriber goes on where it was, and nothing is counted."""
    backend = nats_connect(**nats_settings)
    for n in range(3):
        one = relay(max_attempts=1)
        publish(backend, f"{n}")
        one.wait(*(f"{k} 1" for k in range(n + 1)))
        one.end(signal.SIGTERM)
    assert backend.get_messages_for_topic(f"{SPACE}:{DEAD_LETTER_TOPIC}") == []
    assert texts_of(backend, OUT) == ["0", "1", "2"]


def test_a_killed_subscriber_is_not_listed(
    nats_settings: dict[str, Any], nats_connect: NatsConnect, relay: Callable[..., Relay]
) -> None:
    """Who listens is known without anybody saying goodbye."""
    backend = nats_connect(**nats_settings)
    one = relay()
    wait_until(lambda: backend.load_subscribers(SPACE) == {TOPIC: ["relay"]}, timeout=20)
    one.end(signal.SIGKILL)
    wait_until(lambda: backend.load_subscribers(SPACE) == {})


def test_a_stopped_process_that_comes_back_stores_nothing_twice(
    nats_settings: dict[str, Any], nats_connect: NatsConnect, relay: Callable[..., Relay]
) -> None:
    """Its successor has handled its message by then; its own step is refused, and it ends."""
    backend = nats_connect(**nats_settings)
    publish(backend, "stop")
    stopped = relay()
    process = psutil.Process(stopped.process.pid)
    wait_until(lambda: process.status() == psutil.STATUS_STOPPED, timeout=20)
    attempts = []

    def pass_on(got: Message) -> None:
        attempts.append(got.attempt)
        wait_until(lambda: time.monotonic() > stopped_at + 1.5)  # it could know until then
        backend.store_message(SPACE, OUT, got)

    stopped_at = time.monotonic()
    backend.subscribe(TOPIC, pass_on, subscriber="relay", durable=True)
    backend.start()
    wait_until(lambda: texts_of(backend, OUT) == ["stop"])
    os.kill(stopped.process.pid, signal.SIGCONT)
    out, err = stopped.process.communicate(timeout=20)
    assert "another process has taken the place of its subscriber" in out, err
    assert attempts == [2]
    assert texts_of(backend, OUT) == ["stop"]


def test_a_slow_subscriber_costs_others_nothing(
    nats_settings: dict[str, Any], nats_connect: NatsConnect
) -> None:
    """While one handler hangs, others get more than a place may have in hand."""
    slow, quick, box = nats_connect(**nats_settings), nats_connect(**nats_settings), Box()
    release, inside = threading.Event(), threading.Event()

    def hang(_: Message) -> None:
        inside.set()
        release.wait(30)

    for subscriber in ("durable", "passing"):
        slow.subscribe(TOPIC, hang, subscriber=subscriber, durable=subscriber == "durable")
    slow.start()
    quick.subscribe(TOPIC, box, subscriber="quick")
    quick.start()
    for n in range(3000):
        quick.send_message(SPACE, TOPIC, message(str(n)))
    wait_until(lambda: len(box.messages) == 3000, timeout=20)
    assert inside.is_set()
    assert box.texts == [str(n) for n in range(3000)]
    release.set()


# The server


@pytest.mark.parametrize("kills", [1, 3])
def test_a_server_killed_in_the_middle_of_messages(
    own_server: NatsServer, nats_connect: NatsConnect, kills: int
) -> None:
    """Of 10,000 messages each is stored once and in order, and each subscriber gets all of them."""
    publisher, subscriber = (nats_connect(servers=own_server.url) for _ in range(2))
    durable, passing = Box(), Box()
    subscriber.subscribe(TOPIC, durable, subscriber="durable", durable=True)
    subscriber.subscribe(TOPIC, passing, subscriber="passing")
    subscriber.start()
    killers = {(n + 1) * 10_000 // (kills + 1) for n in range(kills)}
    threads: list[threading.Thread] = []

    def kill() -> None:
        own_server.kill()
        own_server.start()

    for n in range(10_000):
        publisher.send_message(SPACE, TOPIC, message(str(n)))
        if n in killers:
            for thread in threads:
                thread.join()
            threads.append(threading.Thread(target=kill))
            threads[-1].start()
    threads[-1].join()
    publisher.store_message(SPACE, TOPIC, message("end"))
    everything = [*map(str, range(10_000)), "end"]
    assert texts_of(publisher, TOPIC) == everything
    for box in (durable, passing):
        wait_until(lambda box=box: len(box.messages) >= 10_001, timeout=30)  # type: ignore[misc]
        assert box.texts == everything


def test_a_server_killed_in_the_middle_of_steps(
    own_server: NatsServer, nats_connect: NatsConnect
) -> None:
    """A step that a lost connection interrupted is repeated, and has its effect once."""
    backend, relayed = nats_connect(servers=own_server.url), nats_connect(servers=own_server.url)

    def pass_on(got: Message) -> None:
        relayed.send_message(SPACE, OUT, got)

    relayed.subscribe(TOPIC, pass_on, subscriber="relay", durable=True)
    relayed.start()
    for n in range(2000):
        backend.send_message(SPACE, TOPIC, message(str(n)))
    for share in (300, 900):
        wait_until(lambda share=share: len(texts_of(backend, OUT)) >= share, timeout=20)  # type: ignore[misc]
        own_server.kill()
        own_server.start()
    wait_until(lambda: len(texts_of(backend, OUT)) >= 2000, timeout=30)
    assert texts_of(backend, OUT) == [str(n) for n in range(2000)]


def test_places_outlive_a_server(own_server: NatsServer, nats_connect: NatsConnect) -> None:
    """What waited for somebody who is away waits for him on the next server of that folder."""
    backend, box = nats_connect(servers=own_server.url), Box()
    backend.declare(SPACE, TOPIC, "away")
    publish(backend, "1", "2")
    own_server.kill()
    own_server.start()
    publish(backend, "3")
    backend.subscribe(TOPIC, box, subscriber="away", durable=True)
    backend.start()
    box.wait("1", "2", "3")


def test_clients_outlive_a_server_that_forgets(
    own_server: NatsServer, nats_connect: NatsConnect
) -> None:
    """With storage 'memory' all that it had is gone with it; nothing that comes later is missed."""
    settings = {"servers": own_server.url, "storage": "memory"}
    publisher, subscriber = nats_connect(**settings), nats_connect(**settings)
    durable, passing = Box(), Box()
    subscriber.subscribe(TOPIC, durable, subscriber="s", durable=True)
    subscriber.subscribe(TOPIC, passing)
    subscriber.start()
    for n in range(3):
        publish(publisher, f"before {n}")
        wait_until(lambda n=n: [b.texts[-1:] for b in (durable, passing)] == [[f"before {n}"]] * 2)  # type: ignore[misc]
        own_server.kill()
        own_server.start()
        publish(publisher, f"after {n}")
        wait_until(lambda n=n: [b.texts[-1:] for b in (durable, passing)] == [[f"after {n}"]] * 2)  # type: ignore[misc]
        assert texts_of(publisher, TOPIC) == [f"after {n}"]


def test_a_server_that_stays_away_is_given_up(
    own_server: NatsServer, nats_connect: NatsConnect
) -> None:
    """Everybody who waits gets an error that names the server, after `reconnect_timeout`."""
    backend = nats_connect(servers=own_server.url, reconnect_timeout=1.0)
    backend.subscribe(TOPIC, Box(), subscriber="s", durable=True)
    failures: list[Exception] = []

    def serve() -> None:
        with StopSignal() as stop:
            try:
                backend.serve(stop)
            except BackendUnavailableError as e:
                failures.append(e)

    serving = threading.Thread(target=serve)
    serving.start()
    own_server.kill()
    begun = time.monotonic()
    with pytest.raises(BackendUnavailableError, match=r"did not come back within 1 s.*nobody"):
        publish(backend, "lost")
    serving.join(5)
    assert time.monotonic() - begun < 5
    assert own_server.url in str(failures[0])
    with pytest.raises(BackendUnavailableError):
        backend.load_subscribers(SPACE)


def test_cleanup_does_not_wait_for_a_server_that_is_gone(
    own_server: NatsServer, nats_connect: NatsConnect
) -> None:
    """Nobody is there to say goodbye to."""
    backend = nats_connect(servers=own_server.url)
    backend.subscribe(TOPIC, Box(), subscriber="s", durable=True)
    own_server.kill()
    begun = time.monotonic()
    backend.cleanup()
    assert time.monotonic() - begun < 5
