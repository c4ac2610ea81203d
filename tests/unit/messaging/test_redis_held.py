"""What a client of Redis knows of a subscription, when the server comes back with less."""

from __future__ import annotations

import pytest

from rustic_ai.core.messaging.backend.remote import Place
from rustic_ai.redis.held import Held


def entries(*numbers: int, at: int = 0) -> list[tuple[bytes, list[bytes]]]:
    """Return entries of a stream; their ids are `at` later than what stands in them."""
    return [(b"%d-0" % (n + at), [b"r", b"record %d" % n]) for n in numbers]


@pytest.fixture
def held() -> Held:
    """Give one that has read five entries, of which the first three are settled."""
    held = Held(Place("s:t", "a", True, False, 0, None), "stream")
    held.begin(b"0-0", "g1")
    deliveries, again = held.received(entries(1, 2, 3, 4, 5))
    assert [d.token for d in deliveries] == [b"1-0", b"2-0", b"3-0", b"4-0", b"5-0"]
    assert (again, held.settled([b"1-0", b"2-0", b"3-0"])) == ([], [])
    return held


def test_what_was_read_before_is_not_delivered_again(held: Held) -> None:
    """It is acknowledged once more: at once, or when it is settled."""
    held.resume("g2", b"5-0")
    deliveries, again = held.received(entries(3, 4, 5, 6))
    assert [d.token for d in deliveries] == [b"6-0"]
    assert again == [b"3-0"]
    assert held.settled([b"4-0", b"6-0"]) == [b"4-0"]
    assert held.settled([b"5-0"]) == [b"5-0"]


def test_what_was_lost_and_is_stored_again_is_not_delivered_again(held: Held) -> None:
    """A replica that takes over lacks the last entries; their publishers send them once more."""
    held.resume("g2", b"2-0")
    deliveries, again = held.received([*entries(2), *entries(3, 4, 5, 6, at=10)])
    assert [d.record for d in deliveries] == [b"record 6"]
    assert again == [b"2-0", b"13-0"]
    assert held.has_read(b"15-0")
    assert not held.has_read(b"17-0")
    assert held.settled([b"4-0", b"16-0"]) == [b"14-0"]
    assert held.settled([b"5-0"]) == [b"15-0"]
    deliveries, again = held.received(entries(5, at=20))
    assert [d.record for d in deliveries] == [b"record 5"], "sent anew, by somebody who means it"


def test_others_may_have_the_ids_of_what_was_lost(held: Held) -> None:
    """An id alone says nothing about what was lost."""
    held.resume("g2", b"3-0")
    deliveries, again = held.received([(b"4-0", [b"r", b"new"]), (b"5-0", [b"r", b"newer"])])
    assert [d.record for d in deliveries] == [b"new", b"newer"]
    assert again == []
