"""The server's mind without I/O: history, statistics, and what is refused."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest

from rustic_ai.core.errors import ProtocolError
from rustic_ai.core.messaging.backend.embedded_backend.core import Core
from rustic_ai.core.messaging.backend.embedded_backend.limits import Limits
from rustic_ai.core.messaging.backend.embedded_backend.protocol import (
    FROM_NOW,
    HEADER,
    MAX_NAME,
    MAX_STEP,
    Frame,
    Op,
    Query,
    messages_in,
    pack,
    pack_names,
)
from rustic_ai.core.messaging.backend.embedded_backend.store import CHUNK, Bounds
from tests.unit.messaging.wire import Peer, ack, message, step, subscribe


def ask(peer: Peer, kind: Query, *, topic: int = 0, id_: int = 0, body: bytes = b"") -> list[Frame]:
    """Ask, and return the answer's frames."""
    return peer.send(pack(Op.QUERY, body, n=5, aux=kind, topic=topic, id=id_))


def ids_of(rows: list[Frame]) -> list[int]:
    """Return the ids of the messages in an answer."""
    return [stored.id for frame in rows for stored in messages_in(frame.body)]


def by_ids(namespace: str, *ids: int) -> bytes:
    """Return the body of a question for ids."""
    return pack_names(namespace) + struct.pack(f"<{len(ids)}Q", *ids)


def test_history_comes_in_pages_that_join() -> None:
    """Each answer is bounded and says where the next begins; all together are the topic."""
    peer = Peer(Core())
    topic, count = peer.topic(), 3 * CHUNK // 1000
    for n in range(count):
        peer.publish(topic, n, body=bytes(1000))
    position, found, pages, more = 0, [], 0, True
    while more:
        (rows,) = ask(peer, Query.FROM_POSITION, topic=topic, id_=position)
        assert len(rows.body) < CHUNK + 2000
        found += ids_of([rows])
        position, pages, more = rows.id, pages + 1, bool(rows.aux)
    assert found == list(range(count))
    assert pages == 4


def test_history_may_begin_behind_a_message() -> None:
    """Since an id, and the one next to it."""
    peer = Peer(Core())
    topic = peer.topic()
    made = [(4 << 61) + (n << 20) for n in range(1, 6)]
    peer.publish(topic, *made)
    assert ids_of(ask(peer, Query.SINCE_ID, topic=topic, id_=made[2])) == made[3:]
    assert ids_of(ask(peer, Query.SINCE_ID, topic=topic, id_=0)) == made
    assert ids_of(ask(peer, Query.NEXT_AFTER_ID, topic=topic, id_=made[0])) == [made[1]]
    (rows,) = ask(peer, Query.NEXT_AFTER_ID, topic=topic, id_=made[4])
    assert (rows.body, rows.aux) == (b"", 0)
    (rows,) = ask(peer, Query.FROM_POSITION, topic=topic, id_=FROM_NOW)
    assert (rows.body, rows.aux, rows.id) == (b"", 0, 5)


def test_messages_by_id_come_in_pages_too() -> None:
    """In the order asked, of one namespace, with an end that can be told."""
    peer = Peer(Core())
    topic, other = peer.topic("a:t", "a"), peer.topic("b:t", "b")
    count = 2 * CHUNK // 1000
    for n in range(count):
        peer.publish(topic, n, body=bytes(1000))
    peer.publish(other, 9_999)
    wanted = list(range(count))[::-1]
    rows = ask(peer, Query.BY_IDS, body=by_ids("a", *wanted, 9_999))
    assert ids_of(rows) == wanted
    assert [frame.aux for frame in rows] == [1] * (len(rows) - 1) + [0]
    assert all(len(frame.body) < CHUNK + 2000 for frame in rows)
    assert {frame.n for frame in rows} == {5}


def test_asking_twice_for_an_id_gives_it_once() -> None:
    """A small question cannot make an answer of any size."""
    peer = Peer(Core())
    topic = peer.topic("a:t", "a")
    peer.publish(topic, 1, body=bytes(10_000))
    rows = ask(peer, Query.BY_IDS, body=by_ids("a", *[1] * 10_000))
    assert ids_of(rows) == [1]


def test_subscribers_are_those_who_are_here() -> None:
    """By topic of a namespace; who is away, or of another guild, is not among them."""
    core = Core()
    one, two = Peer(core), Peer(core)
    a, b, other = one.topic("n:a", "n"), one.topic("n:b", "n"), one.topic("m:a", "m")
    one.send(subscribe(1, a, "x"), subscribe(2, other, "x"), subscribe(3, b, "gone"))
    two.send(subscribe(1, a, "w", flags=0), subscribe(2, b, "away"))
    one.send(pack(Op.UNSUBSCRIBE, aux=3))
    (rows,) = ask(one, Query.SUBSCRIBERS, body=pack_names("n"))
    assert json.loads(rows.body) == {"n:a": ["w", "x"], "n:b": ["away"]}


def statistics(peer: Peer) -> dict[str, Any]:
    """Ask for the statistics."""
    (rows,) = ask(peer, Query.STATISTICS)
    facts: dict[str, Any] = json.loads(rows.body)
    return facts


def test_statistics_say_who_is_behind() -> None:
    """Of the server, of each topic, of each subscriber."""
    core = Core(epoch=4)
    peer, lost = Peer(core), Peer(core)
    topic = peer.topic("n:t", "n")
    peer.publish(topic, 1, 2, 3)
    lost.send(subscribe(1, topic, "lost"))
    lost.send(ack(1, 1))
    lost.lose()
    peer.send(subscribe(1, topic, "here", flags=0))
    peer.send(ack(1, 2))
    facts = statistics(peer)
    assert facts["server"] == {
        "epoch": 4,
        "connections": 1,
        "refused_connections": 0,
        "streams": 0,
        "rings": 0,
        "shared_memory": {"segments": 0, "slots_in_use": 0, "held_slots": 0},
        "waiting_publishers": 0,
        "journal": None,
        "topics": 1,
        "bytes": 72,
    }
    told = facts["topics"]["n:t"]
    assert 0 <= told.pop("oldest_age") < 60
    subscribers = told.pop("subscribers")
    assert told == {
        "messages_in": 3,
        "stored": 3,
        "bytes": 72,
        "dead": 0,
        "dropped": 0,
        "waiting_publishers": 0,
    }
    common = {"redelivered": 0, "skipped": 0}
    assert subscribers == {
        "lost": {
            "connected": False,
            "durable": True,
            "pending": 2,
            "in_flight": 0,
            "handled": 1,
            "crashes": 1,
            **common,
        },
        "here": {
            "connected": True,
            "durable": False,
            "pending": 1,
            "in_flight": 1,
            "handled": 2,
            "crashes": 0,
            **common,
        },
    }


# What is refused


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (message(7, 1), "topic number 7"),
        (subscribe(1, 7), "topic number 7"),
        (pack(Op.QUERY, topic=7), "topic number 7"),
        (pack(Op.DECLARE, pack_names("s"), topic=7), "topic number 7"),
        (pack(Op.QUERY, aux=99), "unknown kind 99"),
        (pack(Op.QUERY, pack_names("n") + b"123", aux=Query.BY_IDS), "ids that is cut off"),
        (pack(Op.QUERY, aux=Query.SUBSCRIBERS), "a name"),
        (pack(Op.DELIVER), "unknown kind 7"),
        (pack(Op.PUBLISHED, id=1), "unknown kind 4"),
        (pack(Op.HELLO), "unknown kind 1"),
        (pack(200), "unknown kind 200"),  # type: ignore[arg-type]
        (pack(Op.TOPIC, pack_names("n")), "a name"),
        (pack(Op.TOPIC, b"\x01\x04" + bytes(MAX_NAME + 1)), "a name of 1025 bytes"),
        (pack(Op.SUBSCRIBE, n=1), "a name"),
        (subscribe(1, 0, window=0), "no window"),
        (subscribe(1, 0) + subscribe(1, 0), "subscription 1 exists"),
        (pack(Op.DISOWN, pack_names("n")), "a name"),
        (HEADER.pack(23, Op.ACK, 0, 0, 0, 0, 0), "a frame of 23 bytes"),
    ],
)
def test_what_makes_no_sense_is_refused(frame: bytes, reason: str) -> None:
    """Unknown topics, kinds, questions and names end the session, with the reason."""
    peer = Peer(Core())
    peer.topic()
    with pytest.raises(ProtocolError, match=reason):
        peer.send(frame)


def test_frames_are_limited_before_they_are_waited_for() -> None:
    """A header that announces too much is refused as it comes; a step may hold four messages."""
    limits = Limits(max_frame=1000)
    for op, limit in ((Op.TOPIC, 1000), (Op.PUBLISH, 1000), (Op.STEP, 1000 * MAX_STEP)):
        Peer(Core(limits=limits)).send(HEADER.pack(limit, op, 0, 0, 0, 0, 0))
        with pytest.raises(ProtocolError, match=rf"allowed: 24 to {limit:,}\)"):
            Peer(Core(limits=limits)).send(HEADER.pack(limit + 1, op, 0, 0, 0, 0, 0))


@pytest.mark.parametrize("how", ["alone", "behind another", "in a step"])
def test_no_message_is_larger_than_the_limit(how: str) -> None:
    """Whichever way it comes."""
    peer = Peer(Core(limits=Limits(max_frame=1000)))
    topic = peer.topic()
    large = message(topic, 1, bytes(1000 - 24 + 1))
    frames = {
        "alone": large,
        "behind another": message(topic, 2) + large,
        "in a step": step(message(topic, 2), large),
    }
    with pytest.raises(ProtocolError, match="a frame of 1,001 bytes"):
        peer.send(frames[how])
    assert 1 not in peer.history(topic)


def test_topics_are_limited() -> None:
    """One more than allowed is refused; those that exist can still be opened."""
    core = Core(limits=Limits(topics=2))
    peer = Peer(core)
    assert [peer.topic("n:a"), peer.topic("n:b"), peer.topic("n:a")] == [0, 1, 0]
    with pytest.raises(ProtocolError, match="'n:c' would be one more than 2"):
        peer.topic("n:c")
    assert Peer(core).topic("n:b") == 1


def test_subscriptions_are_limited_per_connection() -> None:
    """One more than allowed is refused; one that has ended makes room for another."""
    core = Core(limits=Limits(subscriptions=2))
    peer = Peer(core)
    topic = peer.topic()
    peer.send(subscribe(1, topic, "a"), subscribe(2, topic, "b"))
    peer.send(pack(Op.UNSUBSCRIBE, aux=1), subscribe(3, topic, "c"))
    Peer(core).send(subscribe(1, topic, "d"), subscribe(2, topic, "e"))
    with pytest.raises(ProtocolError, match="one more subscription than 2"):
        peer.send(subscribe(4, topic, "f"))


def test_clients_without_connection_are_forgotten_in_time() -> None:
    """Only so many are remembered; one that says goodbye at once is not."""
    core = Core(limits=Limits(producers=3))
    topic = Peer(core, 0).topic()
    for client in range(1, 10):
        peer = Peer(core, client)
        peer.publish(topic, 1)
        peer.lose()
    known = [Peer(core, client).units for client in range(1, 10)]
    assert sum(known) <= 3
    assert known[-1] == 1
    last = Peer(core, 50)
    last.publish(topic, 1)
    last.leave()
    assert Peer(core, 50).units == 0


def test_a_lost_session_leaves_nothing_behind() -> None:
    """Half a frame, a subscription and output of a session that is gone cost nothing."""
    core = Core(Bounds())
    peer, other = Peer(core), Peer(core)
    topic = peer.topic()
    peer.send(subscribe(1, topic, flags=0))
    core.received(peer.session, message(topic, 1, bytes(100))[:-1])
    peer.lose()
    peer.lose()
    other.publish(topic, 2)
    assert core.take_dirty() == [other.session]
    assert not peer.session.output
    assert statistics(other)["server"]["connections"] == 1
    assert core.store.topics[topic].cursors == []
