"""The server's mind without I/O: subscriptions, windows, redelivery, dead letters."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from rustic_ai.core.errors import ProtocolError
from rustic_ai.core.messaging.backend.embedded_backend.core import Core
from rustic_ai.core.messaging.backend.embedded_backend.delivery import OUTPUT_LIMIT
from rustic_ai.core.messaging.backend.embedded_backend.protocol import (
    DEAD,
    DURABLE,
    FORGET,
    FROM_NOW,
    RESUME,
    Op,
    messages_in,
    pack,
    pack_names,
)
from rustic_ai.core.messaging.backend.embedded_backend.store import Bounds
from rustic_ai.core.messaging.core.dead_letter import unpack_dead_letter
from tests.unit.messaging.journals import opened
from tests.unit.messaging.wire import Got, Peer, ack, got, ids, message, ops, step, subscribe


def with_messages(core: Core, *message_ids: int) -> tuple[Peer, int]:
    """Return a publisher, and a topic with messages, each a run of its own."""
    peer = Peer(core)
    topic = peer.topic()
    for message_id in message_ids:
        peer.publish(topic, message_id, body=b"body")
    return peer, topic


@pytest.mark.parametrize("flags", [0, DURABLE])
def test_a_subscription_begins_where_it_asks_to(flags: int) -> None:
    """At the start, now, or at a position; the answer says where, and comes first."""
    core = Core()
    publisher, topic = with_messages(core, 10, 11, 12)
    subscriber = Peer(core)
    for number, (start, begins) in enumerate([(0, 0), (2, 2), (FROM_NOW, 3), (99, 3)], start=1):
        answers = subscriber.send(subscribe(number, topic, f"s{number}", start=start, flags=flags))
        assert (answers[0].op, answers[0].aux, answers[0].id) == (Op.SUBSCRIBE, number, begins)
        assert ids(answers, number) == [10, 11, 12][begins:]
    publisher.publish(topic, 13)
    frames = subscriber.take()
    assert [ids(frames, number) for number in range(1, 5)] == [[13]] * 4


def test_a_lasting_place_waits_for_its_subscriber() -> None:
    """It goes on where it was acknowledged, whatever position is asked for."""
    core = Core()
    publisher, topic = with_messages(core, 10, 11, 12)
    first = Peer(core)
    first.send(subscribe(1, topic))
    first.send(ack(1, 2))
    first.leave()
    publisher.publish(topic, 13)
    assert ids(Peer(core).send(subscribe(1, topic, start=FROM_NOW))) == [12, 13]


def test_a_passing_place_ends_with_its_session() -> None:
    """Nothing is kept for it, and the next one begins anew."""
    core = Core()
    publisher, topic = with_messages(core, 10)
    Peer(core).send(subscribe(1, topic, flags=0, start=FROM_NOW))
    passing = Peer(core)
    passing.send(subscribe(1, topic, flags=0))
    passing.lose()
    publisher.publish(topic, 11)
    assert len(core.store.topics[topic].cursors) == 1
    assert ids(Peer(core).send(subscribe(1, topic, flags=0, start=FROM_NOW))) == []


def test_declared_places_collect_before_anybody_comes() -> None:
    """DECLARE makes a place once; DISOWN takes all of a subscriber in one namespace."""
    core = Core()
    publisher, topic = with_messages(core, 10)
    other = publisher.topic("m:t", "m")
    declare = [pack(Op.DECLARE, pack_names("s"), n=4, topic=t, id=FROM_NOW) for t in (topic, other)]
    answers = publisher.send(*declare)
    assert [(frame.op, frame.n) for frame in answers] == [(Op.DECLARE, 4)] * 2
    publisher.publish(topic, 11)
    publisher.publish(other, 21)
    publisher.send(*declare)
    subscriber = Peer(core)
    assert ids(subscriber.send(subscribe(1, topic))) == [11]
    (gone,) = publisher.send(pack(Op.DISOWN, pack_names("space", "s"), n=6))
    assert (gone.op, gone.n) == (Op.DISOWN, 6)
    publisher.publish(topic, 12)
    assert subscriber.take() == []
    assert subscriber.send(ack(1, 1)) == []
    assert ids(subscriber.send(subscribe(1, other))) == [21]


def test_unsubscribing_keeps_the_place_unless_it_is_to_be_forgotten() -> None:
    """Nothing is delivered after the answer; ending twice does no harm."""
    core = Core()
    publisher, topic = with_messages(core, 10)
    subscriber = Peer(core)
    subscriber.send(subscribe(1, topic))
    assert ops(subscriber.send(pack(Op.UNSUBSCRIBE, aux=1))) == [Op.UNSUBSCRIBE]
    publisher.publish(topic, 11)
    assert subscriber.take() == []
    answers = subscriber.send(subscribe(2, topic, start=FROM_NOW))
    assert got(answers, 2) == [Got(0, 10, 1), Got(1, 11, 1)], "leaving in good order is no crash"
    end = pack(Op.UNSUBSCRIBE, aux=2, flags=FORGET)
    assert ops(subscriber.send(end, end)) == [Op.UNSUBSCRIBE] * 2
    assert ids(subscriber.send(subscribe(2, topic, start=FROM_NOW)), 2) == []


def test_the_window_holds_a_slow_subscriber_back_and_nobody_else() -> None:
    """Only so much is on its way; acknowledging brings the rest, in order."""
    core = Core()
    publisher = Peer(core)
    topic = publisher.topic()
    slow, fast = Peer(core), Peer(core)
    slow.send(subscribe(1, topic, "slow", window=2))
    fast.send(subscribe(1, topic, "fast", window=100))
    for n in range(6):
        publisher.publish(topic, n)
    assert ids(fast.take()) == [0, 1, 2, 3, 4, 5]
    assert ids(slow.take()) == [0, 1]
    assert [ids(slow.send(ack(1, p))) for p in (1, 1, 3, 4)] == [[2], [], [3, 4], [5]]


def test_what_was_not_delivered_cannot_be_acknowledged() -> None:
    """Whoever claims so ends; nothing was acknowledged by it."""
    core = Core()
    _, topic = with_messages(core, 10, 11, 12)
    subscriber = Peer(core)
    subscriber.send(subscribe(1, topic, window=1))
    with pytest.raises(ProtocolError, match="position 2 acknowledged before it was delivered"):
        subscriber.send(ack(1, 2))
    subscriber.lose()
    assert ids(Peer(core).send(subscribe(1, topic))) == [10, 11, 12]


def test_a_session_with_much_output_gets_no_more_until_it_is_sent() -> None:
    """A connection that does not read costs about a megabyte, and goes on where it was."""
    core = Core()
    publisher, topic = with_messages(core)
    slow = Peer(core)
    slow.send(subscribe(1, topic, window=10_000))
    body = bytes(100_000)
    for n in range(40):
        publisher.publish(topic, n, body=body)
    assert slow.session.output_size < OUTPUT_LIMIT + 2 * len(body)
    assert ids(slow.take()) == list(range(40))


# After a session is lost


def test_resuming_inside_a_run_gives_the_rest_of_it() -> None:
    """A client whose connection was lost goes on behind what it has, not behind the run.

    The prototype lost the rest: transport.md, bug 2.
    """
    for position in range(6):
        core = Core()
        publisher = Peer(core)
        topic = publisher.topic()
        publisher.publish(topic, 10, 11, 12, 13, 14)
        first = Peer(core)
        first.send(subscribe(1, topic))
        first.lose()
        answers = Peer(core).send(subscribe(1, topic, start=position, flags=DURABLE | RESUME))
        assert (answers[0].op, answers[0].id) == (Op.SUBSCRIBE, position)
        assert got(answers) == [Got(p, 10 + p, 1) for p in range(position, 5)]


def test_a_lost_connection_is_no_crash() -> None:
    """Resuming as often as one likes makes no attempts and no dead letters."""
    core = Core()
    _, topic = with_messages(core, 10)
    client = Peer(core, 1)
    client.send(subscribe(1, topic, max_attempts=2))
    for _ in range(5):
        client.lose()
        client = Peer(core, 1)
        flags = DURABLE | RESUME
        assert got(client.send(subscribe(1, topic, max_attempts=2, start=1, flags=flags))) == []
    client.lose()
    assert got(Peer(core).send(subscribe(1, topic, max_attempts=2))) == [Got(0, 10, 2)]


def test_resuming_takes_a_place_within_bounds() -> None:
    """Neither before what was acknowledged nor behind the end."""
    core = Core()
    _, topic = with_messages(core, 10, 11, 12)
    first = Peer(core)
    first.send(subscribe(1, topic))
    first.send(ack(1, 1))
    for position, wanted in ((0, [11, 12]), (2, [12]), (FROM_NOW, [])):
        again = Peer(core)
        flags = DURABLE | RESUME
        assert ids(again.send(subscribe(1, topic, start=position, flags=flags))) == wanted
        again.lose()


def test_a_crash_brings_messages_again_and_counts() -> None:
    """The one in hand comes alone with its attempt; those behind it were only on their way."""
    core = Core()
    publisher, topic = with_messages(core)
    publisher.publish(topic, 10, 11, 12)
    for crashes in range(4):
        subscriber = Peer(core)
        frames = subscriber.send(subscribe(1, topic))
        later = 1 if not crashes else 2
        assert got(frames) == [Got(0, 10, crashes + 1), Got(1, 11, later), Got(2, 12, later)]
        assert ops(frames)[1:] == [Op.DELIVER] * later
        subscriber.lose()
    survivor = Peer(core)
    survivor.send(subscribe(1, topic))
    survivor.send(ack(1, 1))
    publisher.publish(topic, 13)
    survivor.lose()
    frames = Peer(core).send(subscribe(1, topic))
    assert got(frames) == [Got(1, 11, 2), Got(2, 12, 2), Got(3, 13, 2)], "it begins to count anew"


def test_crashes_are_counted_across_a_restart_of_the_server(tmp_path: Path) -> None:
    """What a journal remembers of them makes the message a dead letter after the third of all."""
    with opened(tmp_path) as (journal, _):
        core = Core(journal=journal)
        _, topic = with_messages(core, 10, 11)
        for _ in range(2):
            subscriber = Peer(core)
            subscriber.send(subscribe(1, topic, max_attempts=3))
            subscriber.lose()
        journal.commit()
    with opened(tmp_path) as (journal, recovered):
        core = Core(journal=journal)
        core.restore(recovered)
        subscriber = Peer(core)
        frames = subscriber.send(subscribe(1, topic, max_attempts=3))
        assert got(frames) == [Got(0, 10, 3), Got(1, 11, 1)]
        subscriber.lose()
        frames = Peer(core).send(subscribe(1, topic, max_attempts=3))
        assert got(frames) == [Got(1, 11, 2)]
        assert core.store.topics[topic].dead == 1


def test_a_message_that_kills_becomes_a_dead_letter() -> None:
    """After so many crashes it goes, with the reason, to the dead letters; the next one comes."""
    core = Core()
    publisher, topic = with_messages(core, 10, 11)
    graveyard = publisher.topic("space:dead_letters", "space")
    mourner = Peer(core)
    mourner.send(subscribe(1, graveyard, "mourner"))
    for _ in range(3):
        subscriber = Peer(core)
        assert ids(subscriber.send(subscribe(1, topic, max_attempts=3))) == [10, 11]
        subscriber.lose()
    frames = Peer(core).send(subscribe(1, topic, max_attempts=3))
    assert (frames[0].op, frames[0].id) == (Op.SUBSCRIBE, 1)
    assert got(frames) == [Got(1, 11, 2)]
    (delivery,) = mourner.take()
    (stored,) = messages_in(delivery.body)
    note, envelope = unpack_dead_letter(delivery.body[stored.start : stored.end])
    assert (stored.id, stored.flags, envelope) == (10, DEAD, b"body")
    assert (note.topic, note.subscriber, note.attempts) == ("space:t", "s", 3)
    assert "lost 3 times" in note.reason
    assert core.store.topics[topic].dead == 1


def test_dead_letters_do_not_die_again() -> None:
    """A reader of dead letters that crashes at one leaves it where it is, and gets on."""
    core = Core()
    publisher = Peer(core)
    graveyard = publisher.topic("space:dead_letters")
    publisher.send(message(graveyard, 1, b"x", DEAD))
    for _ in range(2):
        reader = Peer(core)
        reader.send(subscribe(1, graveyard, max_attempts=1))
        reader.lose()
    assert publisher.history(graveyard) == [1]
    assert ids(Peer(core).send(subscribe(1, graveyard, max_attempts=1))) == []


def test_a_new_session_takes_a_lasting_place_over() -> None:
    """The old one gets nothing more, and its late words change nothing."""
    core = Core()
    publisher, topic = with_messages(core, 10, 11)
    old, new = Peer(core), Peer(core)
    old.send(subscribe(1, topic))
    assert ids(new.send(subscribe(7, topic)), 7) == [10, 11]
    publisher.publish(topic, 12)
    assert old.take() == []
    assert old.send(ack(1, 2)) == []
    old.lose()
    assert ids(new.take(), 7) == [12]
    new.lose()
    assert ids(Peer(core).send(subscribe(1, topic))) == [10, 11, 12]


def test_a_step_that_was_lost_brings_its_input_again() -> None:
    """The outputs of a handler and the word for its input live or die together.

    In the prototype a relay skipped by its own position: transport.md, bug 3.
    """
    core = Core()
    publisher, source = with_messages(core, 10, 11)
    sink = publisher.topic("space:sink")
    relay = Peer(core, 1)
    relay.send(subscribe(1, source, "relay"))
    whole = step(ack(1, 1), message(sink, 110))
    core.received(relay.session, whole + step(ack(1, 2), message(sink, 111))[:-1])
    relay.lose()
    assert publisher.history(sink) == [110]
    relay = Peer(core, 1)
    assert relay.units == 1
    assert ids(relay.send(subscribe(1, source, "relay"))) == [11]
    relay.send(step(ack(1, 2), message(sink, 111)))
    assert publisher.history(sink) == [110, 111]


def test_places_of_those_who_do_not_come_back_go() -> None:
    """After the age of messages nobody waits for a subscriber any more."""
    core = Core(Bounds(age=100))
    _, topic = with_messages(core, 10)
    here, away = Peer(core), Peer(core)
    here.send(subscribe(1, topic, "here"))
    away.send(subscribe(1, topic, "away"))
    away.lose()
    now = time.monotonic()
    core.tick(now + 50)
    assert len(core.store.topics[topic].cursors) == 2
    core.tick(now + 1000)
    assert [c.subscriber for c in core.store.topics[topic].cursors] == ["here"]
