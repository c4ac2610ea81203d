"""The embedded server beyond the contract: who may connect, what it keeps, what it refuses."""

from __future__ import annotations

import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rustic_ai.core.errors import (
    AccessError,
    BackendUnavailableError,
    BackPressureError,
    JournalError,
    MessagingConfigError,
)
from rustic_ai.core.messaging.backend.embedded_backend import (
    EmbeddedMessagingBackend,
    EmbeddedServer,
    create_embedded_messaging_config,
)
from rustic_ai.core.messaging.backend.embedded_backend.access import find_server
from rustic_ai.core.messaging.backend.embedded_backend.config import Overflow
from rustic_ai.core.messaging.backend.embedded_backend.limits import Limits
from rustic_ai.core.messaging.backend.embedded_backend.store import Bounds
from rustic_ai.core.messaging.core.messaging_backend import NewPlace
from rustic_ai.core.messaging.core.messaging_config import MessagingConfig
from rustic_ai.core.messaging.core.priority import Priority
from rustic_ai.core.testing.contracts.messaging_backend import SPACE, TOPIC, Box, message
from rustic_ai.core.testing.waiting import wait_until

Start = Callable[..., EmbeddedServer]
Connect = Callable[..., EmbeddedMessagingBackend]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start servers in this process; they are stopped afterwards."""
    servers: list[EmbeddedServer] = []

    def start(port: int = 0, **settings: Any) -> EmbeddedServer:
        servers.append(EmbeddedServer(port=port, **settings))
        servers[-1].start_thread()
        return servers[-1]

    yield start
    for server in servers:
        server.stop_thread()


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Connect to a server; connections are closed afterwards."""
    opened: list[EmbeddedMessagingBackend] = []

    def connect(server: EmbeddedServer, **settings: Any) -> EmbeddedMessagingBackend:
        settings = {"auto_start_server": False, "reconnect_timeout": 5.0, **settings}
        opened.append(EmbeddedMessagingBackend(port=server.port, **settings))
        opened[-1].start()
        return opened[-1]

    yield connect
    for backend in reversed(opened):
        backend.cleanup()


def topic_of(backend: EmbeddedMessagingBackend, name: str = TOPIC) -> dict[str, Any]:
    found: dict[str, Any] = backend.get_statistics()["topics"][name]
    return found


# Who may connect


def test_the_unix_socket_is_its_users_alone(start: Start) -> None:
    """Socket and token have mode 0600, in a directory of 0700; all go with the server."""
    server = start()
    known = find_server(server.port)
    assert known is not None
    assert known.socket_path is not None
    token = known.socket_path.with_suffix(".token")
    for path, mode in ((known.socket_path, 0o600), (token, 0o600), (token.parent, 0o700)):
        assert stat.S_IMODE(path.stat().st_mode) == mode
    server.stop_thread()
    assert not token.exists()
    assert not known.socket_path.exists()


def test_tcp_needs_the_token(start: Start, connect: Connect) -> None:
    """Another token is refused and counted, and costs nobody else anything."""
    server = start()
    known = find_server(server.port)
    assert known is not None
    healthy = connect(server, transport="tcp", token=known.token.hex())
    with pytest.raises(AccessError, match="does not know the token"):
        connect(server, transport="tcp", token="00" * 32)
    wait_until(lambda: healthy.get_statistics()["server"]["refused_connections"] == 1)
    healthy.store_message(SPACE, TOPIC, message("fine"))


def test_a_token_that_is_none_is_refused_at_once() -> None:
    """The error names the setting."""
    with pytest.raises(MessagingConfigError, match=r"backend_config\['token'\]"):
        EmbeddedMessagingBackend(token="secret")


def test_one_connection_too_many_is_refused(start: Start, connect: Connect) -> None:
    """The limit is told to whoever meets it; those who are in go on."""
    server = start(max_connections=2)
    first = connect(server)
    connect(server)
    with pytest.raises(AccessError, match="there are 2 connections already"):
        connect(server)
    first.store_message(SPACE, TOPIC, message("fine"))


def test_limits_cost_only_the_one_who_meets_them(start: Start, connect: Connect) -> None:
    """Too many topics: that connection is refused with the reason; another one works on."""
    server = start(limits=Limits(topics=3))
    other = connect(server)
    other.store_message(SPACE, TOPIC, message("1"))
    greedy = connect(server, reconnect_timeout=0.2)
    with pytest.raises(BackendUnavailableError, match="would be one more than 3"):
        for n in range(5):
            greedy.store_message(SPACE, f"space:{n}", message())
    other.store_message(SPACE, TOPIC, message("2"))
    assert len(other.get_messages_for_topic(TOPIC)) == 2


# How much it keeps


def test_history_is_bounded(start: Start, connect: Connect) -> None:
    """By count and by bytes: the oldest that nobody wants goes, the newest stays."""
    by_count = connect(start(bounds=Bounds(topic_count=100)))
    by_bytes = connect(start(bounds=Bounds(topic_bytes=100_000)))
    for backend in (by_count, by_bytes):
        sent = [message("x" * 1000) for _ in range(1000)]
        for one in sent:
            backend.store_message(SPACE, TOPIC, one)
        kept = backend.get_messages_for_topic(TOPIC)
        assert 50 <= len(kept) <= 107
        assert kept == sent[-len(kept) :]
        assert topic_of(backend)["bytes"] <= 130_000


def test_old_history_goes(start: Start, connect: Connect) -> None:
    """By age: what is older than its limit is gone after a moment."""
    backend = connect(start(bounds=Bounds(age=0.5)))
    backend.store_message(SPACE, TOPIC, message("old"))
    wait_until(lambda: backend.get_messages_for_topic(TOPIC) == [])


SMALL = 200_000


def flood(backend: EmbeddedMessagingBackend, count: int) -> None:
    for n in range(count):
        backend.send_message(SPACE, TOPIC, message(f"{n} " + "x" * 1000))


def test_a_publisher_waits_for_a_slow_subscriber(start: Start, connect: Connect) -> None:
    """With 'block' nothing is lost: the publisher goes on when the subscriber does."""
    server = start(bounds=Bounds(pending=SMALL))
    publisher, subscriber = connect(server), connect(server)
    gate, box = threading.Event(), Box()

    def slow(got: Any) -> None:
        gate.wait(20)
        box(got)

    subscriber.subscribe(TOPIC, slow, subscriber="slow", durable=True)
    thread = threading.Thread(target=flood, args=(publisher, 20_000))
    thread.start()
    wait_until(lambda: topic_of(subscriber)["waiting_publishers"] == 1)
    assert topic_of(subscriber)["bytes"] <= SMALL * 2
    gate.set()
    thread.join(30)
    wait_until(lambda: len(box.messages) == 20_000, timeout=30)
    assert [int(text.split()[0]) for text in box.texts] == list(range(20_000))


def test_waiting_for_room_has_an_end(start: Start, connect: Connect) -> None:
    """A publisher that waits too long gets an error that names topic and subscriber."""
    server = start(bounds=Bounds(pending=SMALL), limits=Limits(wait_for_room=0.3))
    publisher = connect(server)
    publisher.declare(SPACE, TOPIC, "absent")
    with pytest.raises(BackPressureError, match=r"'space:topic' is full: subscriber 'absent' is"):
        for _ in range(1000):
            publisher.store_message(SPACE, TOPIC, message("x" * 1000))


def test_a_full_topic_can_be_an_error(start: Start, connect: Connect) -> None:
    """With 'error' a publisher is told at once, and other topics have room."""
    publisher = connect(start(bounds=Bounds(pending=SMALL, overflow="error")))
    publisher.declare(SPACE, TOPIC, "absent")
    with pytest.raises(BackPressureError, match="'absent'"):
        for _ in range(1000):
            publisher.store_message(SPACE, TOPIC, message("x" * 1000))
    publisher.store_message(SPACE, "space:other", message("fine"))
    with pytest.raises(BackPressureError):
        flood(publisher, 20_000)


def test_the_oldest_can_go(start: Start, connect: Connect) -> None:
    """With 'drop_oldest' nobody waits; who was away gets the newest, and is told what it missed."""
    server = start(bounds=Bounds(pending=SMALL, overflow="drop_oldest"))
    publisher, subscriber = connect(server), connect(server)
    publisher.declare(SPACE, TOPIC, "absent")
    flood(publisher, 5000)
    publisher.store_message(SPACE, TOPIC, message("5000 last"))
    box = Box()
    subscriber.subscribe(TOPIC, box, subscriber="absent", durable=True)
    wait_until(lambda: box.texts and box.texts[-1] == "5000 last")
    numbers = [int(text.split()[0]) for text in box.texts]
    assert numbers == list(range(numbers[0], 5001))
    absent = topic_of(subscriber)["subscribers"]["absent"]
    assert absent["skipped"] == numbers[0]


def test_who_listens_to_itself_does_not_wait_for_itself(start: Start, connect: Connect) -> None:
    """A handler may send more than fits into the topic that it listens to itself."""
    backend = connect(start(bounds=Bounds(pending=SMALL)))
    seen: list[str] = []

    def answer(got: Any) -> None:
        seen.append(got.payload["text"])
        if got.payload["text"] == "go":
            flood(backend, 250)

    backend.subscribe(TOPIC, answer, subscriber="self", durable=True)
    backend.store_message(SPACE, TOPIC, message("go"))
    wait_until(lambda: len(seen) == 251)


# Priorities


def test_what_is_urgent_overtakes() -> None:
    """With lanes an urgent message is handled next, however many others wait; each in order."""
    config = create_embedded_messaging_config(port=0, priority_lanes=True)
    backend = MessagingConfig.of(config).create_backend()
    gate, box = threading.Event(), Box()

    def handle(got: Any) -> None:
        gate.wait(20)
        box(got)

    backend.start()
    backend.subscribe(TOPIC, handle, subscriber="a", durable=True)
    for n in range(50):
        backend.store_message(SPACE, TOPIC, message(f"normal {n}"))
    for n in range(3):
        backend.store_message(SPACE, TOPIC, message(f"urgent {n}", priority=Priority.URGENT))
    backend.store_message(SPACE, TOPIC, message("low", priority=Priority.LOW))
    gate.set()
    wait_until(lambda: len(box.texts) == 54)
    assert box.texts[1:4] == ["urgent 0", "urgent 1", "urgent 2"]
    assert [t for t in box.texts if t.startswith("normal")] == [f"normal {n}" for n in range(50)]
    assert box.texts[-1] == "low"
    assert {m.topic_published_to for m in box.messages} == {TOPIC}
    backend.cleanup()


def test_a_thousand_topics_at_once(start: Start, connect: Connect) -> None:
    """Asking for all of them does not stop at what comes for the first ones meanwhile."""
    client = connect(start())
    topics, text, box = [f"{SPACE}:{n}" for n in range(1000)], "x" * 20_000, Box()
    client.declare_all(SPACE, [NewPlace(topic, "a") for topic in topics])
    for topic in topics:
        client.send_message(SPACE, topic, message(text))
    client.subscribe_all(dict.fromkeys(topics, box), subscriber="a", durable=True)
    wait_until(lambda: len(box.messages) == 1000)
    assert {m.topic_published_to for m in box.messages} == set(topics)


# What outlives it


@pytest.mark.parametrize("sync", ["none", "interval", "group"])
def test_a_journal_outlives_its_server(
    start: Start, connect: Connect, tmp_path: Path, sync: str
) -> None:
    """Topics, history, places and ids are there again; a client goes on without noticing."""
    server = start(data_dir=tmp_path / "data", sync=sync)
    client = connect(server)
    box = Box()
    client.subscribe(TOPIC, box, subscriber="a", durable=True)
    client.declare(SPACE, TOPIC, "b")
    for n in range(10):
        client.store_message(SPACE, TOPIC, message(str(n)))
    box.wait(*map(str, range(10)))
    server.stop_thread()
    again = start(port=server.port, data_dir=tmp_path / "data", sync=sync)
    client.store_message(SPACE, TOPIC, message("10"))
    box.wait(*map(str, range(11)))
    other, late = connect(again), Box()
    assert len(other.get_messages_for_topic(TOPIC)) == 11
    other.subscribe(TOPIC, late, subscriber="b", durable=True)
    late.wait(*map(str, range(11)))


def test_a_journal_has_one_server(start: Start, tmp_path: Path) -> None:
    """A second server with the same directory is refused, and leaves nothing behind."""
    start(data_dir=tmp_path)
    with pytest.raises(JournalError, match=str(tmp_path)):
        start(data_dir=tmp_path)


def test_without_a_journal_clients_go_on_with_an_empty_server(
    start: Start, connect: Connect
) -> None:
    """What the server held is gone with it; subscriptions and new messages work."""
    server = start()
    publisher, subscriber = connect(server), connect(server)
    box = Box()
    subscriber.subscribe("space:first", Box(), subscriber="a")
    subscriber.subscribe(TOPIC, box, subscriber="a", durable=True)
    publisher.store_message(SPACE, TOPIC, message("1"))
    box.wait("1")
    server.stop_thread()
    start(port=server.port)
    publisher.store_message(SPACE, TOPIC, message("2"))
    box.wait("1", "2")
    assert len(publisher.get_messages_for_topic(TOPIC)) == 1


# Sharing it


def test_guilds_share_a_server_in_peace(start: Start, connect: Connect) -> None:
    """Two namespaces do not see each other, and closing one changes nothing for the other."""
    server = start()
    one, two = connect(server), connect(server)
    boxes = {"one": Box(), "two": Box()}
    for backend, space in ((one, "one"), (two, "two")):
        backend.subscribe(f"{space}:topic", boxes[space], subscriber="a", durable=True)
    one.store_message("one", "one:topic", message("1"))
    two.store_message("two", "two:topic", message("2"))
    boxes["one"].wait("1")
    boxes["two"].wait("2")
    one.disown("one", "a")
    one.cleanup()
    two.store_message("two", "two:topic", message("3"))
    boxes["two"].wait("2", "3")


@pytest.mark.parametrize("overflow", ["block", "error", "drop_oldest"])
def test_settings_reach_a_server_that_is_started(overflow: Overflow, tmp_path: Path) -> None:
    """Journal and bounds of the configuration are those of the auto-started server."""
    backend = EmbeddedMessagingBackend(
        port=0, data_dir=tmp_path / "data", overflow=overflow, bounds={"topic_count": 5}
    )
    for _ in range(20):
        backend.store_message(SPACE, TOPIC, message())
    assert topic_of(backend)["stored"] <= 5
    assert backend.get_statistics()["server"]["journal"]["segments"] == 1
    backend.cleanup()


def test_statistics(start: Start, connect: Connect) -> None:
    """In, stored, pending, redelivered, dead, bytes, connections: what an operator asks for."""
    server = start()
    publisher, subscriber = connect(server), connect(server)
    box = Box()
    subscriber.subscribe(TOPIC, box, subscriber="a", durable=True)
    publisher.declare(SPACE, TOPIC, "b")
    for _ in range(3):
        publisher.store_message(SPACE, TOPIC, message("x"))
    wait_until(lambda: topic_of(publisher)["subscribers"]["a"]["handled"] == 3)
    found = topic_of(publisher)
    assert (found["messages_in"], found["stored"], found["dead"]) == (3, 3, 0)
    assert found["bytes"] > 100
    assert found["oldest_age"] < 60
    waiting = found["subscribers"]["b"]
    assert (waiting["pending"], waiting["connected"], waiting["durable"]) == (3, False, True)
    facts = publisher.get_statistics()["server"]
    assert facts["connections"] == 2
    assert facts["journal"] is None
