"""What a client keeps until the server has confirmed it."""

from __future__ import annotations

from rustic_ai.core.messaging.backend.embedded_backend.protocol import (
    HEADER_SIZE,
    Op,
    Query,
    pack,
    pack_names,
)
from rustic_ai.core.messaging.backend.embedded_backend.window import (
    MAX_BYTES,
    MAX_UNITS,
    SendWindow,
    with_topic,
)
from tests.unit.messaging.wire import ack, message, step


def filled(count: int) -> SendWindow:
    """Return a window of small messages with the ids 1, 2, and so on."""
    window = SendWindow()
    assert [window.add(message(0, i)) for i in range(1, count + 1)] == list(range(1, count + 1))
    return window


def left(window: SendWindow) -> list[bytes]:
    """Return what is kept, without letting go of anything."""
    return list(window.resume(0))


def test_units_go_when_the_server_has_them() -> None:
    """The word is cumulative; one that came twice or is old changes nothing."""
    window = filled(5)
    for word, accepted in ((2, 2), (1, 2), (2, 2), (5, 5)):
        window.accept(word)
        assert (window.accepted, window.sent) == (accepted, 5)
    assert left(window) == []


def test_a_word_for_more_than_was_sent_changes_nothing_later() -> None:
    """A server that claims too much does not make the next unit vanish."""
    window = filled(1)
    window.accept(10)
    assert window.add(message(0, 2)) == 2
    assert left(window) == [message(0, 2)]


def test_it_is_full_by_count_and_by_bytes_until_some_are_confirmed() -> None:
    """Both bounds hold a publisher back, and both let go again."""
    many = filled(MAX_UNITS - 1)
    assert not many.is_full()
    many.add(message(0, 0))
    assert many.is_full()
    many.accept(1)
    assert not many.is_full()
    large = SendWindow()
    large.add(message(0, 1, bytes(MAX_BYTES - HEADER_SIZE - 1)))
    assert not large.is_full()
    large.add(message(0, 2))
    assert large.is_full()
    large.accept(1)
    assert not large.is_full()


def test_a_new_connection_gets_what_the_server_has_not() -> None:
    """What it stored before the connection was lost is not sent twice."""
    window = filled(5)
    window.accept(1)
    assert list(window.resume(3)) == [message(0, 4), message(0, 5)]
    assert window.accepted == 3


def test_a_server_that_has_forgotten_counts_from_zero() -> None:
    """After that its smaller numbers mean our later units, through a second restart, too."""
    window = filled(5)
    window.accept(3)
    assert list(window.resume(0)) == [message(0, 4), message(0, 5)]
    window.accept(1)
    assert (window.accepted, left(window)) == (4, [message(0, 5)])
    assert window.add(message(0, 6)) == 6
    assert list(window.resume(0)) == [message(0, 5), message(0, 6)]
    window.refuse(1, "full")
    window.accept(2)
    assert (window.accepted, window.refusals) == (6, {5: "full"})


def test_other_numbers_of_topics_reach_every_unit() -> None:
    """Messages, alone and in steps, follow their topic; two topics can change places."""
    window = SendWindow()
    window.add(message(1, 10, b"a"))
    window.add(step(ack(1, 7), message(2, 11, b"b"), message(3, 12)))
    window.renumber({1: 2, 2: 1}, keep_acks=True)
    assert left(window) == [
        message(2, 10, b"a"),
        step(ack(1, 7), message(1, 11, b"b"), message(3, 12)),
    ]


def test_positions_of_another_life_are_not_acknowledged() -> None:
    """Towards a server that has forgotten, a step keeps its messages and loses its word."""
    window = SendWindow()
    window.add(step(ack(1, 7), message(2, 11), ack(2, 8)))
    window.renumber({2: 5}, keep_acks=False)
    assert left(window) == [step(message(5, 11))]
    window.accept(1)
    assert not window.is_full()
    window.add(message(0, 1, bytes(MAX_BYTES - HEADER_SIZE - 1)))
    assert not window.is_full(), "bytes that renumbering took away are not counted"


def test_only_what_names_a_topic_is_changed() -> None:
    """Questions follow their topic; where the field means nothing it stays."""
    for op in (Op.PUBLISH, Op.QUERY, Op.DECLARE):
        assert with_topic(pack(op, b"x", topic=1), {1: 258}) == pack(op, b"x", topic=258)
    opening = pack(Op.TOPIC, pack_names("n", "t"), n=3)
    assert with_topic(opening, {1: 2}) == opening
    by_ids = pack(Op.QUERY, aux=Query.STATISTICS)
    assert with_topic(by_ids, {1: 2}) == by_ids
    assert with_topic(pack(Op.ACK, topic=1), {1: 2}) == pack(Op.ACK, topic=1)
