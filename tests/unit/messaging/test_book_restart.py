"""The book of a server that was started again: who comes back finds what it needs."""

from __future__ import annotations

from pathlib import Path

from rustic_ai.core.messaging.backend.embedded_backend.core import Core
from rustic_ai.core.messaging.backend.embedded_backend.protocol import (
    HANDLED,
    RESUME,
    Op,
    pack,
    pack_names,
)
from rustic_ai.core.messaging.backend.embedded_backend.shared.book import (
    OWNERS_COME_BACK,
    SUBSCRIBERS_COME_BACK,
)
from tests.unit.messaging.journals import opened
from tests.unit.messaging.shelves import SEGMENT, Owner, facts, large, make, may_hold, slot
from tests.unit.messaging.wire import Peer, ack, ids, subscribe

A = slot(0)


def come_back(owner: Owner) -> int:
    """Open a topic as a client of the server before does; returns its number."""
    names = pack_names("space", "space:t")
    (answer,) = owner.send(pack(Op.TOPIC, names, n=1, flags=RESUME))
    return answer.topic


def test_subscribers_may_come_back_later_than_publishers() -> None:
    """What is stored before they are here again stays for them."""
    core = Core()
    owner = Owner(core, SEGMENT)
    topic = come_back(owner)
    owner.send(large(topic, 1, (A, 1)))
    assert owner.hear() == []
    core.book.tick(5.0)
    reader = Peer(core)
    assert ids(reader.send(subscribe(1, topic))) == [1]
    core.book.tick(5.0 + SUBSCRIBERS_COME_BACK)
    assert owner.hear() == []
    reader.send(ack(1, 1))
    assert owner.hear() == [(A, 1)]


def test_what_was_stored_before_is_not_kept() -> None:
    """Its slots may have been filled again by the time of the restart."""
    core = Core()
    owner = Owner(core, SEGMENT)
    owner.send(large(owner.topic(), 1, (A, 1)))
    topic = come_back(owner)
    owner.send(large(topic, 2, (slot(1), 1)))
    assert owner.hear() == [(A, 1)]
    reader = Peer(core)
    old, new = (
        frame.flags & HANDLED
        for frame in reader.send(subscribe(1, topic))
        if frame.op == Op.DELIVER
    )
    assert (old, new) == (HANDLED, 0)


def test_subscribers_are_not_waited_for_any_longer() -> None:
    """Who does not come needs nothing."""
    core = Core()
    owner = Owner(core, SEGMENT)
    owner.send(large(come_back(owner), 1, (A, 1)))
    core.book.tick(5.0)
    core.book.tick(4.9 + SUBSCRIBERS_COME_BACK)
    assert owner.hear() == []
    core.book.tick(5.0 + SUBSCRIBERS_COME_BACK)
    assert owner.hear() == [(A, 1)]


def test_a_server_that_is_started_again_waits_for_owners() -> None:
    """What a journal remembers may come back with its owner, for a moment."""
    old, owner, _, topic = make()
    owner.send(large(topic, 1, (A, 1)))
    run = old.store.topics[topic].message_at(0)
    core = Core()
    new = core.open_topic("space", "space:t")
    core.store.restore(new, 0, run)
    reader = Owner(core)
    reader.send(subscribe(1, topic))
    core.book.restored(new, run, 0)
    assert facts(core) == (1, 1, 0)
    assert core.book.may_come(SEGMENT)
    assert not core.book.read_by(reader.client, SEGMENT)
    core.book.tick(5.0)
    assert core.book.may_come(SEGMENT)
    owner = Owner(core, SEGMENT, client=owner.client)
    assert not core.book.may_come(SEGMENT)
    assert core.book.read_by(reader.client, SEGMENT)
    core.book.tick(6.0 + OWNERS_COME_BACK)
    owner.take()
    reader.send(ack(1, 1))
    assert owner.hear() == [(A, 1)]


def test_owners_that_do_not_come_back_are_not_waited_for_any_longer() -> None:
    """What nobody acknowledges then goes without them."""
    old, owner, _, topic = make()
    owner.send(large(topic, 1, (A, 1)))
    core = Core()
    new = core.open_topic("space", "space:t")
    core.book.restored(new, old.store.topics[topic].message_at(0), 0)
    core.book.tick(5.0)
    core.book.tick(5.0 + OWNERS_COME_BACK)
    assert not core.book.may_come(SEGMENT)


def test_what_was_let_go_of_before_a_restart_stays_so(tmp_path: Path) -> None:
    """A late subscriber is told, and not shown what a slot holds by now."""
    with opened(tmp_path) as (journal, _):
        core, owner, reader, topic = make(Core(journal=journal))
        owner.send(large(topic, 1, (A, 1)))
        reader.take()
        reader.send(ack(1, 1))
        owner.send(large(topic, 2, (slot(1), 1)))
        assert owner.hear() == [(A, 1)]
        journal.commit()
    with opened(tmp_path) as (journal, recovered):
        core = Core(journal=journal)
        core.restore(recovered)
        Owner(core, SEGMENT, client=owner.client)
        late = Peer(core)
        frames = [f for f in late.send(subscribe(1, topic, "late")) if f.op == Op.DELIVER]
        assert [bool(frame.flags & HANDLED) for frame in frames] == [True, False]
        assert not may_hold(late, A, 1)
        assert may_hold(late, slot(1), 1)
