"""Clients of Redis that are killed, crash, leave, or are replaced; and bounds."""

from __future__ import annotations

import subprocess
import threading
from typing import Any

import pytest

from rustic_ai.core.errors import (
    BackendUnavailableError,
    BackPressureError,
    MessageTooLargeError,
)
from rustic_ai.core.messaging.core.dead_letter import DEAD_LETTER_TOPIC
from rustic_ai.core.messaging.core.message import Message
from rustic_ai.core.messaging.core.stop_signal import StopSignal
from rustic_ai.core.testing.contracts.messaging_backend import SPACE, TOPIC, Box, message
from rustic_ai.core.testing.waiting import wait_until
from tests.redis_server import (
    OUT,
    Open,
    RedisServer,
    connect_fixture,  # noqa: F401 - a fixture
    facts_of,
    opened_fixture,  # noqa: F401 - a fixture
    settings_fixture,  # noqa: F401 - a fixture
    shared_redis_fixture,  # noqa: F401 - a fixture
    texts,
)
from tests.support import start_program


def end(process: subprocess.Popen[str]) -> None:
    """`kill -9` where it still runs, and collect."""
    process.kill()
    process.communicate(timeout=20)


def test_what_a_killed_process_had_in_hand_comes_again(
    connect: Open, settings: dict[str, Any]
) -> None:
    """`kill -9` in a handler: its message comes again first, with attempt 2, then the others."""
    backend, box = connect(), Box()
    backend.declare(SPACE, TOPIC, "agent")
    for text in ("0", "1"):
        backend.store_message(SPACE, TOPIC, message(text))
    process = start_program("redis_subscriber.py", "agent", repr(settings))
    assert process.stdout is not None
    try:
        assert [process.stdout.readline() for _ in range(2)] == ["0 1\n", "1 1\n"]
        wait_until(lambda: texts(backend, OUT) == ["0", "1"])
        for text in ("stop", "3", "4"):
            backend.store_message(SPACE, TOPIC, message(text))
        assert process.stdout.readline() == "stop 1\n"
        wait_until(lambda: facts_of(backend, "agent")["in_flight"] == 3)
        assert backend.load_subscribers(SPACE) == {TOPIC: ["agent"]}
    finally:
        end(process)
    wait_until(lambda: backend.load_subscribers(SPACE) == {})
    backend.subscribe(TOPIC, box, subscriber="agent", durable=True)
    backend.start()
    backend.store_message(SPACE, TOPIC, message("new"))
    box.wait("stop", "3", "4", "new")
    assert [m.attempt for m in box.messages] == [2, 2, 2, 1]
    assert texts(backend, OUT) == ["0", "1"]  # nothing of the handler that was killed


def test_a_poison_message_becomes_a_dead_letter(connect: Open, settings: dict[str, Any]) -> None:
    """After three crashes in its handler a message is given up, and the next ones are handled."""
    backend = connect()
    backend.declare(SPACE, TOPIC, "agent")
    poison = message("crash")
    for one in (message("before"), poison, message("after")):
        backend.store_message(SPACE, TOPIC, one)
    seen = []
    for _ in range(3):
        process = start_program("redis_subscriber.py", "agent", repr(settings))
        out, err = process.communicate(timeout=30)
        assert process.returncode == 9, err
        seen.append(out.split("\n")[-2])
    assert seen == ["crash 1", "crash 2", "crash 3"]
    box = Box()
    backend.subscribe(TOPIC, box, subscriber="agent", durable=True, max_attempts=3)
    backend.start()
    box.wait("after")
    (dead,) = backend.get_messages_for_topic(f"{SPACE}:{DEAD_LETTER_TOPIC}")
    assert dead == poison
    assert dead.dead_letter is not None
    assert (dead.dead_letter.topic, dead.dead_letter.attempts) == (TOPIC, 3)
    assert "lost 3 times" in dead.dead_letter.reason


def test_a_relay_that_is_killed_again_and_again(connect: Open, settings: dict[str, Any]) -> None:
    """From input to output every message has its effect once, and in order, through `kill -9`."""
    backend = connect()
    total = 0
    while total < 3000:
        process = start_program("redis_subscriber.py", "relay", repr(settings))
        done = len(texts(backend, OUT))
        try:
            for n in range(total, total + 500):
                backend.send_message(SPACE, TOPIC, message(str(n)))
            total += 500
            wait_until(lambda done=done: len(texts(backend, OUT)) > done, timeout=30)  # type: ignore[misc]
        finally:
            end(process)
    process = start_program("redis_subscriber.py", "relay", repr(settings))
    try:
        wait_until(lambda: len(texts(backend, OUT)) >= total, timeout=30)
    finally:
        end(process)
    assert texts(backend, OUT) == [str(n) for n in range(total)]


def test_leaving_is_no_crash(connect: Open) -> None:
    """What was given to one that left cleanly is the first attempt of the next."""
    first, box = connect(), Box()
    with StopSignal() as stop:
        first.subscribe(TOPIC, lambda _: stop.set(), subscriber="agent", durable=True)
        for n in range(3):
            first.store_message(SPACE, TOPIC, message(str(n)))
        first.serve(stop)
    first.cleanup()
    second = connect()
    second.subscribe(TOPIC, box, subscriber="agent", durable=True, max_attempts=1)
    second.start()
    box.wait("1", "2")
    assert [m.attempt for m in box.messages] == [1, 1]


def test_a_holder_that_was_replaced_stores_nothing(connect: Open) -> None:
    """Its step is refused as a whole, what it reads is nobody's loss, and it says why it ends."""
    old, new, box = connect(), connect(), Box()
    inside, go_on = threading.Event(), threading.Event()

    def slow(got: Message) -> None:
        inside.set()
        assert go_on.wait(20)
        old.store_message(SPACE, OUT, message("from the old one"))

    old.subscribe(TOPIC, slow, subscriber="agent", durable=True)
    old.start()
    new.store_message(SPACE, TOPIC, message("once"))
    assert inside.wait(10)
    new.subscribe(TOPIC, box, subscriber="agent", durable=True)
    new.start()
    box.wait("once")
    assert box.messages[0].attempt == 2
    for n in range(200):  # the reader of the old one still waits for them, too
        new.store_message(SPACE, TOPIC, message(str(n)))
    box.wait("once", *map(str, range(200)))
    go_on.set()

    def complaint() -> str:
        try:
            old.get_messages_for_topic(TOPIC)
        except BackendUnavailableError as e:
            return str(e)
        return ""

    assert "another process has taken the place of its subscriber 'agent'" in wait_until(complaint)
    assert texts(new, OUT) == []


def test_a_plain_subscription_leaves_nothing_behind(
    connect: Open, settings: dict[str, Any], shared_redis: RedisServer
) -> None:
    """One that is killed has no group in the server, and is not listed."""
    backend = connect()
    process = start_program("redis_subscriber.py", "plain", repr(settings))
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n"
        assert backend.load_subscribers(SPACE) == {TOPIC: ["plain"]}
    finally:
        end(process)
    wait_until(lambda: backend.load_subscribers(SPACE) == {})
    backend.store_message(SPACE, TOPIC, message("1"))
    stream = f"{settings['prefix']}:stream:{TOPIC}"
    assert shared_redis.ask(f"XINFO GROUPS {stream}") == "*0"
    assert shared_redis.ask(f"HLEN {settings['prefix']}:present") == ":0"
    assert int(shared_redis.ask(f"PTTL {stream}")[1:]) > 0  # a topic that nobody uses goes, too


def test_history_is_bounded_but_for_what_is_wanted(connect: Open) -> None:
    """Old messages go by count, never those that a durable subscriber has not handled."""
    backend, box = connect(max_messages=100), Box()
    backend.declare(SPACE, TOPIC, "late")
    for n in range(400):
        backend.send_message(SPACE, TOPIC, message(str(n)))
        backend.send_message(SPACE, OUT, message(str(n)))
    backend.store_message(SPACE, TOPIC, message("last"))
    assert len(texts(backend)) == 401
    assert 100 <= len(texts(backend, OUT)) <= 200
    assert texts(backend, OUT)[-1] == "399"
    backend.subscribe(TOPIC, box, subscriber="late", durable=True)
    backend.start()
    box.wait(*map(str, range(400)), "last")
    for n in range(100):
        backend.store_message(SPACE, TOPIC, message(str(n)))
    wait_until(lambda: len(box.messages) == 501)
    for n in range(50):
        backend.store_message(SPACE, TOPIC, message(str(n)))
    assert len(texts(backend)) <= 200


def test_old_history_goes(connect: Open) -> None:
    """Messages older than `max_age` are trimmed."""
    backend = connect(max_age=0.2, max_messages=40)
    backend.declare(SPACE, TOPIC, "reader")
    backend.subscribe(TOPIC, Box(), subscriber="reader", durable=True)
    backend.start()
    backend.store_message(SPACE, TOPIC, message("old"))

    def publish_and_look() -> bool:
        backend.store_message(SPACE, TOPIC, message("new"))
        return "old" not in texts(backend)

    wait_until(publish_and_look)


def test_a_publisher_waits_for_a_slow_subscriber(connect: Open) -> None:
    """With more than `max_pending` to acknowledge, the publisher waits; nothing is lost."""
    publisher, subscriber = connect(max_pending=100), connect()
    box, go_on = Box(), threading.Event()

    def handle(got: Message) -> None:
        go_on.wait(20)
        box(got)

    subscriber.subscribe(TOPIC, handle, subscriber="slow", durable=True)
    subscriber.start()
    stored: list[int] = []

    def publish() -> None:
        for n in range(400):
            publisher.store_message(SPACE, TOPIC, message(str(n)))
            stored.append(n)

    thread = threading.Thread(target=publish)
    thread.start()
    wait_until(lambda: len(stored) > 100)
    thread.join(0.5)
    assert 100 < len(stored) < 200
    go_on.set()
    thread.join(20)
    box.wait(*map(str, range(400)))


def test_waiting_for_room_has_an_end(connect: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """A topic that stays full gives an error that names topic and subscriber."""
    monkeypatch.setattr("rustic_ai.redis.pressure.WAIT_FOR_ROOM", 0.3)
    backend = connect(max_pending=20)
    backend.declare(SPACE, TOPIC, "absent")
    with pytest.raises(BackPressureError, match="'absent' of topic 'space:topic'"):
        for n in range(100):
            backend.store_message(SPACE, TOPIC, message(str(n)))
    backend.disown(SPACE, "absent")
    backend.store_message(SPACE, TOPIC, message("room"))
    assert texts(backend)[-1] == "room"


def test_a_message_over_the_limit(connect: Open) -> None:
    """It is refused at once, nothing of it is stored, and the backend works on."""
    backend = connect()
    with pytest.raises(MessageTooLargeError):
        backend.store_message(SPACE, TOPIC, message("x" * (16 << 20)))
    backend.store_message(SPACE, TOPIC, message("x" * ((16 << 20) - 1000)))
    assert len(texts(backend)) == 1


def test_statistics(connect: Open) -> None:
    """Topics, and who is how far in them."""
    backend = connect()
    backend.declare(SPACE, TOPIC, "absent")
    backend.subscribe(TOPIC, Box(), subscriber="plain")
    backend.store_message(SPACE, TOPIC, message("1"))
    facts = backend.get_statistics()["topics"][TOPIC]
    assert (facts["messages_in"], facts["stored"]) == (1, 1)
    assert facts_of(backend, "absent") == {
        "connected": False,
        "durable": True,
        "pending": 1,
        "in_flight": 0,
        "crashes": 0,
    }
    assert facts_of(backend, "plain") == {"connected": True, "durable": False}
