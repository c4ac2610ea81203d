"""The server's book of slots: none is released while somebody needs it, none kept when nobody."""

from __future__ import annotations

import struct

import pytest

from rustic_ai.core.errors import ProtocolError
from rustic_ai.core.messaging.backend.embedded_backend.core import Core, Limits
from rustic_ai.core.messaging.backend.embedded_backend.protocol import FORGET, Op, pack
from rustic_ai.core.messaging.backend.embedded_backend.shared.book import (
    IDLE,
    MAX_SEGMENTS,
)
from rustic_ai.core.messaging.backend.embedded_backend.store import Bounds
from tests.unit.messaging.shelves import (
    SEGMENT,
    Owner,
    facts,
    hold,
    large,
    make,
    may_hold,
    released,
    slot,
    unhold,
)
from tests.unit.messaging.wire import Peer, ack, ids, message, ops, step, subscribe

A, B = slot(0), slot(1)


def test_the_last_acknowledgement_releases() -> None:
    """Of two subscribers the slower one decides."""
    core, owner, reader, topic = make()
    other = Peer(core)
    other.send(subscribe(1, topic, "other"))
    owner.send(large(topic, 1, (A, 1), (B, 1)))
    reader.send(ack(1, 1))
    assert owner.hear() == []
    other.send(ack(1, 1))
    assert sorted(owner.hear()) == [(A, 1), (B, 1)]
    assert facts(core) == (1, 0, 0)


def test_it_is_released_at_once() -> None:
    """Not with the next look around, but before the next output is sent."""
    core, owner, reader, topic = make()
    owner.send(large(topic, 1, (A, 1)))
    reader.send(ack(1, 1))
    core.take_dirty()
    assert released(owner.take()) == [(A, 1)]


def test_nobody_listens() -> None:
    """A message that no subscriber waits for needs nothing."""
    core = Core()
    owner = Owner(core, SEGMENT)
    owner.send(large(owner.topic(), 1, (A, 1)))
    assert owner.hear() == [(A, 1)]


def test_two_messages_of_one_filling() -> None:
    """Both need it, in whatever order they come, and both uses are told."""
    core, owner, reader, topic = make()
    other = owner.topic("space:u")
    reader.send(subscribe(2, other, "s"))
    owner.send(large(topic, 1, (A, 2)), large(other, 1, (A, 1)))
    reader.send(ack(1, 1))
    assert owner.hear() == []
    reader.send(ack(2, 1))
    assert sorted(owner.hear()) == [(A, 1), (A, 2)]
    assert facts(core) == (1, 0, 0)


def test_a_holder_keeps_it() -> None:
    """Beyond the acknowledgement, until it says so."""
    core, owner, reader, topic = make()
    owner.send(large(topic, 1, (A, 1)))
    reader.send(hold(A), ack(1, 1))
    assert owner.hear() == []
    assert facts(core) == (1, 1, 1)
    reader.send(unhold(A))
    assert owner.hear() == [(A, 1)]
    reader.send(unhold(A), hold(A))
    assert facts(core) == (1, 0, 0)


def test_holding_what_is_old_is_asked_for() -> None:
    """The same filling may be held, another one may not."""
    _, owner, reader, topic = make()
    owner.send(large(topic, 1, (A, 4)))
    assert ids(reader.take()) == [1]
    assert may_hold(reader, A, 4)
    assert not may_hold(reader, A, 3)
    assert not may_hold(reader, B, 4)
    reader.send(ack(1, 1))
    assert owner.hear() == []
    reader.send(unhold(A))
    assert owner.hear() == [(A, 4)]
    assert not may_hold(reader, A, 4)


def test_an_owner_may_ask_after_a_lost_connection() -> None:
    """The answer comes where nobody needs that use; else it comes when that is so."""
    _, owner, reader, topic = make()
    owner.send(large(topic, 1, (A, 2)))
    question = [pack(Op.RELEASED, id=A, n=2), pack(Op.RELEASED, id=A, n=1)]
    assert released(owner.send(*question)) == [(A, 1)]
    reader.send(ack(1, 1))
    assert owner.hear() == [(A, 2)]
    assert released(owner.send(*question)) == [(A, 2), (A, 1)]


def test_a_lost_session_looks_on_until_it_says_otherwise() -> None:
    """Its place is gone, its process is not: it may be in the middle of the message."""
    core, owner, reader, topic = make(durable=0)
    owner.send(large(topic, 1, (A, 1)), large(topic, 2, (B, 1)))
    reader.lose()
    assert owner.hear() == []
    again = Owner(core, client=reader.client)
    again.send(pack(Op.UNHOLD, struct.pack("<Q", B)))
    assert owner.hear() == [(A, 1)]
    again.send(pack(Op.UNHOLD))
    assert owner.hear() == [(B, 1)]
    with pytest.raises(ProtocolError, match="slots in 7 bytes"):
        again.send(pack(Op.UNHOLD, bytes(7)))


def test_a_dead_process_looks_at_nothing() -> None:
    """Whichever of its connections is seen to end first."""
    for channel_first in (False, True):
        core, owner, reader, topic = make(durable=0)
        owner.send(large(topic, 1, (A, 1)))
        reader.send(hold(A))
        if channel_first:
            core.book.channel_closed(reader.client)
            assert owner.hear() == []
            reader.lose()
        else:
            reader.die()
        assert owner.hear() == [(A, 1)]


def test_who_holds_without_a_channel_is_forgotten_with_its_session() -> None:
    """It cannot look at anything."""
    core, owner, _, topic = make()
    stranger = Peer(core)
    owner.send(large(topic, 1, (A, 1)))
    stranger.send(hold(A))
    stranger.lose()
    assert facts(core) == (1, 1, 0)


def test_a_crashed_subscriber_gets_it_again() -> None:
    """A durable place keeps the slot while its process is away."""
    core, owner, reader, topic = make()
    owner.send(large(topic, 1, (A, 1)))
    reader.die()
    assert owner.hear() == []
    again = Owner(core)
    assert ids(again.send(subscribe(1, topic))) == [1]
    again.send(ack(1, 1))
    assert owner.hear() == [(A, 1)]


def test_a_dead_owner_leaves_its_messages() -> None:
    """Its segment goes with the last that needs it, and readers are told."""
    core, owner, reader, topic = make()
    closed: list[int] = []
    core.book.close = closed.append
    owner.send(large(topic, 1, (A, 1)))
    assert core.book.read_by(reader.client, SEGMENT)
    owner.die()
    assert core.book.read_by(reader.client, SEGMENT)
    assert closed == []
    reader.send(ack(1, 1))
    core.take_dirty()
    assert [(f.op, f.id) for f in reader.take()] == [(Op.FORGET, SEGMENT)]
    assert closed == [SEGMENT]
    assert facts(core) == (0, 0, 0)
    assert not core.book.read_by(reader.client, SEGMENT)


def test_a_segment_is_given_up_and_offered_again() -> None:
    """Within one turn, too; each descriptor is closed once."""
    core, owner, _, _ = make()
    closed: list[int] = []
    core.book.close = closed.append
    for _ in range(3):
        owner.send(pack(Op.FORGET, id=SEGMENT))
        assert core.book.offered(owner.client, SEGMENT)
        assert not core.book.offered(owner.client, SEGMENT), "it is there already"
    assert closed == [SEGMENT] * 3


def test_only_ones_own_segment_is_forgotten_or_used() -> None:
    """Of another's no message is stored; nothing of a run or step with one is."""
    core, owner, reader, topic = make()
    reader.send(pack(Op.FORGET, id=SEGMENT))
    assert facts(core) == (1, 0, 0)
    with pytest.raises(ProtocolError, match="another client's"):
        core.book.offered(reader.client, SEGMENT)
    bad = large(topic, 2, (A, 1))
    for frames in (bad, step(message(topic, 1), bad), step(message(topic, 1), bad[:-1])):
        stranger = Peer(core)
        with pytest.raises(ProtocolError):
            stranger.send(frames)
        stranger.lose()
    with pytest.raises(ProtocolError):
        owner.send(step(large(topic, 3, (A, 1)), large(topic, 4, (slot(0, 0x78), 1))))
    assert owner.history(topic) == []
    assert facts(core) == (1, 0, 0)


def test_a_step_is_applied_whole() -> None:
    """What it acknowledges is released, what it sends is needed."""
    core, owner, reader, topic = make()
    other = owner.topic("space:u")
    owner.send(subscribe(1, other, "o"))
    core.book.offered(reader.client, 0x99)
    owner.send(large(topic, 1, (A, 1)))
    reader.send(step(ack(1, 1), large(other, 2, (slot(0, 0x99), 1))))
    assert owner.hear() == [(A, 1)]
    assert facts(core) == (2, 1, 0)
    owner.send(ack(1, 1))
    assert reader.hear() == [(slot(0, 0x99), 1)]


def test_there_is_a_limit_of_segments() -> None:
    """One more is not taken; one that is there may be offered again."""
    core = Core()
    owner = Owner(core, *range(1, MAX_SEGMENTS + 1))
    assert not core.book.has_room(owner.client, MAX_SEGMENTS + 1)
    assert core.book.has_room(owner.client, 1)
    assert not core.book.offered(owner.client, 1)


def test_an_idle_segment_should_go() -> None:
    """Its owner is asked once; not while a slot is needed."""
    core, owner, reader, topic = make()
    owner.send(large(topic, 1, (A, 1)))
    core.book.tick(1.0)
    core.book.tick(2.0 + IDLE)
    reader.send(ack(1, 1))
    core.take_dirty()
    owner.take()
    for now in (100.0, 101.0, 102.0 + IDLE, 103.0 + IDLE):
        core.book.tick(now)
    assert [(f.op, f.id) for f in owner.take()] == [(Op.RETIRE, SEGMENT)]


# Where a topic is full


def full(overflow: str) -> tuple[Core, Owner, Owner, int]:
    """Return the same, and the topic has no room."""
    bounds = Bounds(pending=300, overflow=overflow)  # type: ignore[arg-type]
    core = Core(bounds, Limits(wait_for_room=10.0))
    core, owner, reader, topic = make(core, window=1)
    owner.send(message(topic, 1, bytes(250)))
    return core, owner, reader, topic


def test_what_waits_for_room_needs_its_slot() -> None:
    """It is counted once, before and after it was stored."""
    core, owner, reader, topic = full("block")
    owner.send(large(topic, 2, (A, 1)))
    assert owner.hear() == []
    assert facts(core) == (1, 1, 0)
    reader.send(ack(1, 1))
    assert owner.hear() == []
    reader.send(ack(1, 2))
    assert owner.hear() == [(A, 1)]


def test_what_waits_too_long_is_refused_and_released() -> None:
    """The sender has both words."""
    core, owner, _, topic = full("block")
    owner.send(large(topic, 2, (A, 1)))
    core.tick(1e9)
    frames = owner.take()
    assert Op.REFUSED in ops(frames)
    assert released(frames) == [(A, 1)]


def test_what_waits_ends_with_its_sender() -> None:
    """A killed process needs nothing; its segment is closed."""
    core, owner, _, topic = full("block")
    owner.send(large(topic, 2, (A, 1)))
    owner.die()
    assert facts(core) == (0, 0, 0)


def test_what_is_refused_is_released() -> None:
    """With 'error' at once."""
    _, owner, _, topic = full("error")
    frames = owner.send(large(topic, 2, (A, 1)))
    assert Op.REFUSED in ops(frames)
    assert released(frames) == [(A, 1)]


def test_what_is_dropped_is_released() -> None:
    """As soon as nobody has it in hand."""
    core, owner, reader, topic = full("drop_oldest")
    owner.send(large(topic, 2, (A, 1)))
    owner.send(message(topic, 3, bytes(250)))
    reader.send(ack(1, 1))
    reader.send(ack(1, 3))
    assert owner.hear() == [(A, 1)]
    assert facts(core) == (1, 0, 0)


def test_too_much_that_waits_needs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that is thrown out for it leaves no slot behind."""
    module = "rustic_ai.core.messaging.backend.embedded_backend.intake._MAX_PARKED"
    monkeypatch.setattr(module, 1)
    core, owner, _, topic = full("block")
    with pytest.raises(ProtocolError, match="without waiting"):
        owner.send(*(large(topic, n, (slot(n), 1)) + ack(1, 0) for n in range(2, 6)))
    owner.die()
    assert facts(core) == (0, 0, 0)


# What outlives its subscriber, or the server


def test_a_dead_letter_keeps_its_slot() -> None:
    """A message that kills its subscriber can still be read, until it leaves the history."""
    core, owner, reader, topic = make()
    owner.send(large(topic, 1, (A, 1)))
    for _ in range(2):
        reader.die()
        reader = Owner(core)
        reader.send(subscribe(1, topic, max_attempts=2))
    assert core.store.topics[topic].dead == 1
    assert owner.hear() == []
    assert may_hold(reader, A, 1)
    reader.send(unhold(A))
    assert owner.hear() == []


def test_a_place_that_is_given_up_needs_nothing() -> None:
    """An ended subscription frees what waited for it."""
    _, owner, reader, topic = make()
    owner.send(large(topic, 1, (A, 1)))
    reader.send(pack(Op.UNSUBSCRIBE, flags=FORGET, aux=1))
    owner.core.take_dirty()  # at once, and not with the next look around
    assert released(owner.take()) == [(A, 1)]
