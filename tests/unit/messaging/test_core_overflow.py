"""The server's mind without I/O: what happens to messages for a topic that is full."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from rustic_ai.core.messaging.backend.embedded_backend import delivery
from rustic_ai.core.messaging.backend.embedded_backend.core import Core
from rustic_ai.core.messaging.backend.embedded_backend.limits import Limits
from rustic_ai.core.messaging.backend.embedded_backend.protocol import (
    DURABLE,
    HEADER_SIZE,
    RESUME,
    Frame,
    Op,
    pack,
)
from rustic_ai.core.messaging.backend.embedded_backend.store import Bounds
from tests.unit.messaging.journals import opened, recovered_from
from tests.unit.messaging.wire import Got, Peer, ack, got, ids, message, ops, step, subscribe

SIZE = 100
BODY = bytes(SIZE - HEADER_SIZE)
BLOCK = Bounds(pending=5 * SIZE)
ERROR = Bounds(pending=5 * SIZE, overflow="error")
DROP = Bounds(pending=5 * SIZE, overflow="drop_oldest")


def full(core: Core, *, window: int = 100) -> tuple[Peer, Peer, int]:
    """Return a publisher, an idle subscriber, and their topic, filled with 0 to 4."""
    publisher, subscriber = Peer(core), Peer(core)
    topic = publisher.topic()
    subscriber.send(subscribe(1, topic, window=window))
    for n in range(5):
        assert ops(put(publisher, topic, n)) == [Op.PUBLISHED]
    subscriber.take()
    return publisher, subscriber, topic


def put(peer: Peer, topic: int, *message_ids: int) -> list[Frame]:
    """Publish one run of messages of `SIZE` bytes."""
    return peer.publish(topic, *message_ids, body=BODY)


def test_a_publisher_waits_until_there_is_room() -> None:
    """Nothing is lost or out of order; the word comes when the messages are stored."""
    core = Core(BLOCK)
    publisher, subscriber, topic = full(core)
    assert put(publisher, topic, 5) == []
    assert put(publisher, topic, 6, 7) == []
    assert subscriber.take() == []
    assert core.store.topics[topic].waiting
    assert ids(subscriber.send(ack(1, 1))) == [5]
    assert ids(subscriber.send(ack(1, 2))) == [], "a run of two needs room for two"
    assert ids(subscriber.send(ack(1, 3))) == [6, 7]
    assert [frame.id for frame in publisher.take()][-1] == 8
    assert not core.store.topics[topic].waiting


def test_others_do_not_wait_with_it() -> None:
    """Who publishes elsewhere goes on, and so do the waiting one's own questions."""
    core = Core(BLOCK)
    publisher, _, topic = full(core)
    put(publisher, topic, 5)
    other = Peer(core)
    assert ops(put(other, other.topic("space:other"), 1)) == [Op.PUBLISHED]
    assert publisher.history(topic) == [0, 1, 2, 3, 4]
    assert put(publisher, publisher.topic("space:other"), 2) == [], "its own order holds"


@pytest.mark.parametrize("how", ["leave", "lose", "forget"])
def test_room_comes_when_the_slow_one_goes(how: str) -> None:
    """Passing subscribers make room however they end, lasting ones when they are forgotten."""
    core = Core(BLOCK)
    publisher, subscriber = Peer(core), Peer(core)
    topic = publisher.topic()
    subscriber.send(subscribe(1, topic, flags=DURABLE if how == "forget" else 0))
    for n in range(6):
        put(publisher, topic, n)
    if how == "forget":
        publisher.send(pack(Op.DISOWN, b"\x05\x00space\x01\x00s", n=1))
    else:
        getattr(subscriber, how)()
    assert publisher.history(topic)[-1] == 5


def test_a_waiting_step_is_applied_whole_later() -> None:
    """Neither its word nor its messages count before all of it can be stored."""
    core = Core(BLOCK)
    publisher, subscriber, topic = full(core)
    source = publisher.topic("space:source")
    publisher.publish(source, 100)
    relay = Peer(core)
    relay.send(subscribe(1, source, "relay"))
    other = relay.topic("space:other")
    assert relay.send(step(ack(1, 1), message(other, 101), message(topic, 102, BODY))) == []
    assert core.store.topics[source].cursors[0].acked == 0
    assert publisher.history(other) == []
    subscriber.send(ack(1, 1))
    assert ops(relay.take()) == [Op.PUBLISHED]
    assert core.store.topics[source].cursors[0].acked == 1
    assert (publisher.history(other), publisher.history(topic)[-1]) == ([101], 102)


def test_no_word_overtakes_a_waiting_step() -> None:
    """A later word for the same subscription waits, too: else a crash would lose the outputs."""
    core = Core(BLOCK)
    publisher, _, topic = full(core)
    source = publisher.topic("space:source")
    publisher.publish(source, 100, 101)
    relay = Peer(core)
    relay.send(subscribe(1, source, "relay"))
    relay.send(step(ack(1, 1), message(topic, 200, BODY)))
    relay.send(ack(1, 2))
    relay.lose()
    assert ids(Peer(core).send(subscribe(1, source, "relay"))) == [100, 101]


def test_a_word_for_something_else_does_not_wait() -> None:
    """Who publishes faster than others read can still say what it has read itself."""
    core = Core(BLOCK)
    publisher, _, topic = full(core)
    source = publisher.topic("space:source")
    publisher.send(subscribe(2, source, "p"))
    publisher.publish(source, 100)
    put(publisher, topic, 5)
    publisher.send(ack(2, 1))
    assert core.store.topics[source].cursors[0].acked == 1


def test_a_waiting_step_costs_nobody_else_its_session() -> None:
    """Its word was true when it came; that its subscription began anew meanwhile is no error."""
    core = Core(BLOCK)
    publisher, subscriber, topic = full(core)
    source = publisher.topic("space:source")
    publisher.publish(source, 100, 101)
    publisher.publish(source, 102)
    relay = Peer(core)
    relay.send(subscribe(1, source, "relay"))
    relay.send(step(ack(1, 3), message(topic, 200, BODY)))
    relay.send(pack(Op.UNSUBSCRIBE, aux=1), subscribe(1, source, "relay", window=1))
    assert ids(subscriber.send(ack(1, 5))) == [200]
    relay.lose()
    assert ids(Peer(core).send(subscribe(1, source, "relay"))) == []


def test_room_that_a_waiting_step_makes_is_used() -> None:
    """Its word, applied late, lets those go on who wait for its sender."""
    core = Core(BLOCK)
    publisher, subscriber, topic = full(core)
    source = publisher.topic("space:source")
    relay = Peer(core)
    relay.send(subscribe(1, source, "relay"))
    for n in range(100, 105):
        put(publisher, source, n)
    relay.send(step(ack(1, 5), message(topic, 200, BODY)))
    assert put(publisher, source, 105) == []
    subscriber.send(ack(1, 5))
    assert publisher.history(source)[-1] == 105
    assert ids(relay.take()) == [105]


def test_nobody_waits_for_itself() -> None:
    """Who is the one behind may fill its topic to twice the limit, and so never hangs."""
    core = Core(BLOCK)
    peer = Peer(core)
    topic = peer.topic()
    peer.send(subscribe(1, topic))
    for n in range(10):
        assert Op.PUBLISHED in ops(put(peer, topic, n))
    assert put(peer, topic, 10) == []
    frames = peer.send(ack(1, 6))
    assert ids(frames) == [10]


def test_who_waited_for_another_does_not_go_on_to_wait_for_itself() -> None:
    """When the other one has caught up, the sender is the slowest: it must not wait any more."""
    core = Core(BLOCK)
    peer, other = Peer(core), Peer(core)
    topic = peer.topic()
    other.send(subscribe(1, topic, "other"))
    peer.send(subscribe(1, topic, "self"))
    for n in range(5):
        put(peer, topic, n)
    assert peer.send(step(ack(1, 1), message(topic, 5, BODY), message(topic, 6, BODY))) == []
    other.take()
    assert ids(other.send(ack(1, 5))) == [5, 6]
    assert Op.PUBLISHED in ops(peer.take())


def test_waiting_has_an_end() -> None:
    """After `wait_for_room` the publisher is told who is behind; what follows gets its chance."""
    core = Core(BLOCK, Limits(wait_for_room=10))
    publisher, subscriber, topic = full(core)
    put(publisher, topic, 5, 6)
    put(publisher, publisher.topic("space:other"), 7)
    now = time.monotonic()
    core.tick(now + 9)
    assert publisher.take() == []
    core.tick(now + 11)
    refused = publisher.take()
    assert [(frame.op, frame.id) for frame in refused] == [
        (Op.REFUSED, 6),
        (Op.REFUSED, 7),
        (Op.PUBLISHED, 7),
        (Op.PUBLISHED, 8),
    ]
    assert refused[0].body.decode() == (
        "topic 'space:t' is full: subscriber 's' is 5 messages behind"
    )
    assert not core.store.topics[topic].waiting
    assert ids(subscriber.send(ack(1, 5))) == []


def test_small_progress_of_others_does_not_make_one_wait_for_ever() -> None:
    """A large run that never fits is refused in time, although the topic moves."""
    core = Core(BLOCK, Limits(wait_for_room=10))
    publisher, subscriber, topic = full(core)
    put(publisher, topic, 5, 6, 7)
    since = publisher.session.parked_at
    subscriber.send(ack(1, 1))
    assert publisher.session.parked_at == since
    core.tick(since + 10.1)
    assert Op.REFUSED in ops(publisher.take())


def test_a_lost_publisher_leaves_nothing_waiting() -> None:
    """What it had sent and what was not stored is not counted; it will send it again."""
    core = Core(BLOCK)
    publisher, subscriber, topic = full(core)
    put(publisher, topic, 5)
    publisher.lose()
    assert not core.store.topics[topic].waiting
    assert ids(subscriber.send(ack(1, 5))) == []
    again = Peer(core, publisher.client)
    assert again.units == 5
    assert ops(put(again, topic, 5)) == [Op.PUBLISHED]


def test_an_error_comes_at_once_where_so_configured() -> None:
    """Every message of the run is refused, the number of units goes on, later ones are stored."""
    core = Core(ERROR)
    publisher, subscriber, topic = full(core)
    frames = put(publisher, topic, 5, 6)
    assert [(f.op, f.id) for f in frames] == [
        (Op.REFUSED, 6),
        (Op.REFUSED, 7),
        (Op.PUBLISHED, 7),
    ]
    assert b"subscriber 's' is 5 messages behind" in frames[0].body
    subscriber.send(ack(1, 5))
    assert [f.id for f in put(publisher, topic, 8)] == [8]
    assert ids(subscriber.take()) == [8]


def test_a_refused_step_does_not_acknowledge() -> None:
    """Its input comes again."""
    core = Core(ERROR)
    publisher, _, topic = full(core)
    source = publisher.topic("space:source")
    publisher.publish(source, 100)
    relay = Peer(core)
    relay.send(subscribe(1, source, "relay"))
    frames = relay.send(step(ack(1, 1), message(topic, 200, BODY)))
    assert [(f.op, f.id) for f in frames] == [(Op.REFUSED, 1), (Op.PUBLISHED, 1)]
    relay.lose()
    assert got(Peer(core).send(subscribe(1, source, "relay"))) == [Got(0, 100, 2)]


def gaps(frames: list[Frame]) -> list[int]:
    """Return where subscribers are told to go on."""
    return [frame.id for frame in frames if frame.op == Op.DELIVER and frame.n == 0]


def test_the_oldest_goes_and_its_subscriber_is_told() -> None:
    """Where so configured the publisher never waits; a gap says where the messages go on."""
    core = Core(DROP)
    publisher, subscriber, topic = full(core, window=2)
    for n in range(5, 10):
        assert ops(put(publisher, topic, n)) == [Op.PUBLISHED]
    frames = subscriber.take() + subscriber.send(ack(1, 2))
    assert gaps(frames)[0] > 2
    rest = got(frames)
    assert [each.position for each in rest] == [each.id for each in rest]
    while rest[-1].id < 9:
        more = got(subscriber.send(ack(1, rest[-1].position + 1)))
        assert more
        rest += more
    assert core.store.topics[topic].dropped == 5
    assert core.store.topics[topic].cursors[0].skipped > 0


def test_who_does_not_listen_costs_no_more_the_longer_it_lasts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where it listens again, one word tells of all that was dropped meanwhile."""
    monkeypatch.setattr(delivery, "OUTPUT_LIMIT", 4 * SIZE)
    core = Core(DROP)
    publisher, subscriber, topic = full(core)
    for n in range(5, 1_000):
        assert ops(put(publisher, topic, n)) == [Op.PUBLISHED]
        assert subscriber.session.output_size < 7 * SIZE
    frames = subscriber.take()
    assert gaps(frames) == [995]
    assert ids(frames) == [5, 6, 7, 8, *range(995, 1_000)]


def test_a_gap_that_was_not_told_does_not_outlive_the_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Who goes on behind it sees by the positions, and may have messages before these in hand."""
    monkeypatch.setattr(delivery, "OUTPUT_LIMIT", 4 * SIZE)
    core = Core(DROP)
    publisher, subscriber = Peer(core), Peer(core)
    topic = publisher.topic()
    subscriber.send(subscribe(1, topic, flags=DURABLE))
    for n in range(20):
        put(publisher, topic, n)
    assert core.store.topics[topic].cursors[0].gap
    subscriber.lose()
    again = Peer(core, subscriber.client)
    frames = again.send(subscribe(1, topic, start=17, flags=DURABLE | RESUME))
    assert gaps(frames) == []
    assert ids(frames) == [17, 18, 19]


@pytest.mark.parametrize("window", [1, 2, 100])
def test_who_was_away_while_much_was_dropped_goes_on(window: int) -> None:
    """It is told of the gap and gets what there is, even where the gap exceeds its window."""
    core = Core(DROP)
    publisher, subscriber, topic = full(core)
    subscriber.lose()
    for n in range(5, 20):
        put(publisher, topic, n)
    again = Peer(core)
    frames = again.send(subscribe(1, topic, window=window))
    assert gaps(frames) == [15]
    assert ids(frames) == list(range(15, 15 + min(window, 5)))
    assert core.store.topics[topic].cursors[0].skipped == 15


def test_a_journal_is_told_of_what_was_dropped(tmp_path: Path) -> None:
    """After a restart nothing comes back that had made room, and its files can go."""
    with opened(tmp_path) as (journal, _):
        core = Core(DROP, journal=journal)
        publisher, _, topic = full(core)
        for n in range(5, 20):
            put(publisher, topic, n)
        journal.commit()
    assert recovered_from(tmp_path).starts == {topic: 15}


def test_a_journal_is_told_of_the_largest_topic_that_paid(tmp_path: Path) -> None:
    """Too much history in all takes from another topic than the one that was published to."""
    with opened(tmp_path) as (journal, _):
        core = Core(Bounds(total_bytes=10 * SIZE), journal=journal)
        peer = Peer(core)
        large, small = peer.topic("n:large"), peer.topic("n:small")
        for n in range(10):
            put(peer, large, n)
        put(peer, small, 1, 2)
        journal.commit()
    assert recovered_from(tmp_path).starts == {large: 2}
