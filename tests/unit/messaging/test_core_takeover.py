"""The server's mind without I/O: two processes that both take themselves for one subscriber."""

from __future__ import annotations

from rustic_ai.core.messaging.backend.embedded_backend.core import Core
from rustic_ai.core.messaging.backend.embedded_backend.protocol import (
    DURABLE,
    FORGET,
    Op,
    pack,
)
from rustic_ai.core.messaging.backend.embedded_backend.store import Bounds
from tests.unit.messaging.wire import Peer, ack, got, ids, message, ops, step, subscribe


def with_relay(core: Core) -> tuple[Peer, Peer, int, int]:
    """Return a publisher, a relay with message 10 in hand, and the relay's two topics."""
    publisher, relay = Peer(core), Peer(core)
    source, sink = publisher.topic(), publisher.topic("space:sink")
    publisher.publish(source, 10)
    assert ids(relay.send(subscribe(1, source, "relay"))) == [10]
    return publisher, relay, source, sink


def test_a_late_step_of_who_has_lost_its_place_is_not_applied() -> None:
    """Its input is another's by now, who stores what comes of it; the late one is told, and ends.

    A process that was killed may still have steps on their way; one that was stopped comes back.
    """
    core = Core()
    publisher, old, source, sink = with_relay(core)
    new = Peer(core)
    assert ids(new.send(subscribe(1, source, "relay"))) == [10]
    (answer,) = old.send(step(ack(1, 1), message(sink, 110)))
    assert answer.op == Op.ERROR
    assert b"another process has taken the place" in answer.body
    assert old.session.ended
    assert publisher.history(sink) == []
    assert ops(new.send(step(ack(1, 1), message(sink, 110)))) == [Op.PUBLISHED]
    assert publisher.history(sink) == [110]


def test_nor_is_one_that_has_waited_for_room_meanwhile() -> None:
    """Who makes the room is not disturbed by that, and nothing that waits behind it is applied."""
    core = Core(Bounds(pending=100))
    publisher, old, source, sink = with_relay(core)
    publisher.publish(sink, 1, body=bytes(90))
    slow, new = Peer(core), Peer(core)
    assert ids(slow.send(subscribe(1, sink, "slow"))) == [1]
    assert old.send(step(ack(1, 1), message(sink, 110)), message(sink, 111)) == []
    new.send(subscribe(1, source, "relay"))
    assert ids(slow.send(ack(1, 1))) == []
    assert ops(old.take()) == [Op.ERROR]
    assert {110, 111}.isdisjoint(publisher.history(sink))
    new.send(step(ack(1, 1), message(sink, 110)))
    assert ids(slow.take()) == [110]


def test_its_other_messages_come_again() -> None:
    """Where it had places that nobody took, those wait for the next process, attempts counted."""
    core = Core()
    publisher, old, source, sink = with_relay(core)
    other = publisher.topic("space:other")
    publisher.publish(other, 20)
    assert ids(old.send(subscribe(2, other, "relay")), 2) == [20]
    new = Peer(core)
    new.send(subscribe(1, source, "relay"))
    old.send(step(ack(1, 1), ack(2, 1), message(sink, 110), message(sink, 120)))
    old.lose()
    assert [(each.id, each.attempt) for each in got(new.send(subscribe(2, other, "relay")), 2)] == [
        (20, 2)
    ]
    assert publisher.history(sink) == []


def test_who_gave_its_place_up_itself_may_still_send() -> None:
    """A handler that ends its own subscription is no stranger to what it has in hand."""
    for flags in (0, FORGET):
        core = Core()
        publisher, relay, _, sink = with_relay(core)
        relay.send(pack(Op.UNSUBSCRIBE, flags=flags, aux=1))
        assert ops(relay.send(step(ack(1, 1), message(sink, 110)))) == [Op.PUBLISHED]
        assert publisher.history(sink) == [110]


def test_who_has_lost_a_place_may_take_it_back() -> None:
    """Asked for anew, under the same number, it is a place like any other."""
    core = Core()
    publisher, old, source, sink = with_relay(core)
    new = Peer(core)
    new.send(subscribe(1, source, "relay"))
    assert ids(old.send(subscribe(1, source, "relay", flags=DURABLE))) == [10]
    assert ops(old.send(step(ack(1, 1), message(sink, 110)))) == [Op.PUBLISHED]
    assert ops(new.send(step(ack(1, 1), message(sink, 110)))) == [Op.ERROR]
    assert publisher.history(sink) == [110]
