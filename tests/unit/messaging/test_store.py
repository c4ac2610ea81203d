"""Topics as plain data: runs, positions, bounds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rustic_ai.core.messaging.backend.embedded_backend.protocol import messages_in
from rustic_ai.core.messaging.backend.embedded_backend.store import (
    CHUNK,
    Bounds,
    Cursor,
    Store,
    Topic,
)
from tests.unit.messaging.wire import message

SIZE = 100
"""Of every message here, header included."""


def frame(message_id: int) -> bytes:
    """Return a message of `SIZE` bytes."""
    return message(0, message_id, bytes(SIZE - len(message(0, 0))))


def append(where: Topic | Store, *ids: int, topic: Topic | None = None, now: float = 0.0) -> None:
    """Add a run."""
    run = b"".join(map(frame, ids))
    if isinstance(where, Topic):
        where.append(run, ids, now)
    else:
        assert topic is not None
        where.append(topic, run, ids, now)


def filled(*runs: tuple[int, ...]) -> Topic:
    """Return a topic with these runs."""
    topic = Topic(0, "n", "n:t")
    for run in runs:
        append(topic, *run)
    return topic


def ids_of(run: bytes) -> list[int]:
    """Return the ids of a run."""
    return [stored.id for stored in messages_in(run)]


def all_of(topic: Topic) -> list[int]:
    """Return the ids of what a topic has."""
    return ids_of(topic.chunk(0, 1 << 64)[0])


def reader(topic: Topic, acked: int = 0) -> Cursor:
    """Give somebody a place in a topic."""
    cursor = Cursor(topic, "s", durable=True, acked=acked, sent=acked)
    topic.cursors.append(cursor)
    return cursor


def test_a_position_inside_a_run_gives_the_rest_of_it() -> None:
    """Whoever goes on inside a run gets what follows in it, and nothing before."""
    topic = filled((10, 11, 12), (13,), (14, 15))
    got = [(ids_of(run), after) for run, after in (topic.run_at(p) for p in range(6))]
    assert got == [
        ([10, 11, 12], 3),
        ([11, 12], 3),
        ([12], 3),
        ([13], 4),
        ([14, 15], 6),
        ([15], 6),
    ]
    assert [ids_of(topic.message_at(p)) for p in range(6)] == [[i] for i in range(10, 16)]


@given(
    st.lists(st.integers(1, 5), max_size=20),
    st.integers(0, 110),
    st.one_of(st.integers(0, 110), st.just((1 << 64) - 1)),
    st.integers(0, 20),
)
def test_a_chunk_is_what_was_asked_for(
    lengths: list[int], position: int, most: int, drops: int
) -> None:
    """From any position, at most so many, at most what there is, and where to go on."""
    topic, everything = filled(), list(range(1000, 1000 + sum(lengths)))
    for length in lengths:
        append(topic, *everything[topic.end : topic.end + length])
    for _ in range(drops):
        topic.drop_oldest(topic.end)
    position = min(position, topic.end)
    run, after = topic.chunk(position, most)
    begin = max(position, topic.start)
    assert ids_of(run) == everything[begin : min(position + most, topic.end)]
    assert after == begin + len(ids_of(run))


def test_a_chunk_is_bounded_and_chunks_join() -> None:
    """However much a topic has, one answer is about `CHUNK` bytes; together they are all."""
    topic, count = filled(), 3 * CHUNK // SIZE
    for first in range(0, count, 10):
        append(topic, *range(first, first + 10))
    position, got = 0, []
    while position < topic.end:
        run, after = topic.chunk(position, 1 << 64)
        assert 0 < len(run) < CHUNK + 10 * SIZE
        assert after > position
        got += ids_of(run)
        position = after
    assert got == list(range(topic.end))


def at(ms: int, low: int = 0) -> int:
    """Return the id of a message made at a time."""
    return 4 << 61 | ms << 20 | low


def test_after_is_the_position_behind_a_message() -> None:
    """For each message, in order, out of order, and twice."""
    made = [at(n, 7) for n in range(6)]
    topic = filled(tuple(made[:2]), tuple(made[2:]))
    for order in (range(6), reversed(range(6)), (3, 3, 0, 1, 1, 5, 4)):
        for index in order:
            assert topic.after(made[index]) == index + 1


def test_after_an_unknown_message_is_the_first_later_one() -> None:
    """A message that is gone, or of another topic, still says where to go on."""
    topic = filled((at(10), at(20), at(30)))
    assert [topic.after(at(ms, 1)) for ms in (5, 10, 15, 25, 30, 35)] == [0, 1, 1, 2, 3, 3]
    topic = filled((at(10),), (at(20),), (at(30),))
    topic.drop_oldest(3)
    assert topic.after(at(10)) == 1
    assert topic.after(at(20)) == 2


def test_reading_one_by_one_does_not_search() -> None:
    """Going through a long topic by ids is linear: the next one is where the last one ended."""

    class Counting(list[int]):
        searches = 0

        def index(self, *args: int) -> int:  # type: ignore[override]
            Counting.searches += 1
            return super().index(*args)

    topic = filled(tuple(at(n) for n in range(50)))
    topic.ids = Counting(topic.ids)  # type: ignore[assignment]
    assert [topic.after(at(n)) for n in range(50)] == list(range(1, 51))
    assert Counting.searches <= 1


def test_the_hint_survives_what_is_dropped() -> None:
    """Compaction moves ids; reading on by ids is right before, at and after it."""
    topic = filled()
    for n in range(3000):
        append(topic, at(n))
        if n >= 1000:
            assert topic.drop_oldest(topic.end) == SIZE
            assert topic.after(at(n - 500)) == n - 499
    assert (topic.start, topic.end, len(topic.ids) < 2100) == (2000, 3000, True)


def test_find_gives_positions() -> None:
    """Messages are found by id where they are, those that are gone are not."""
    topic = filled((1, 2), (3, 4), (5,))
    assert sorted(topic.find({2, 3, 99})) == [(2, 1), (3, 2)]
    topic.drop_oldest(topic.end)
    assert sorted(topic.find({2, 3, 5})) == [(3, 2), (5, 4)]


def test_the_slowest_reader_is_the_floor() -> None:
    """What one of several readers still wants stays; without readers nothing is wanted."""
    topic = filled((1,), (2,), (3,))
    assert topic.floor == 3
    for acked, floor in ((2, 2), (1, 1), (3, 1)):
        reader(topic, acked)
        assert topic.floor == floor


def test_only_whole_runs_before_the_floor_are_dropped() -> None:
    """What somebody wants stays, and with it the run that it is in."""
    topic = filled((1, 2), (3, 4), (5,))
    assert [topic.drop_oldest(floor) for floor in (0, 1)] == [0, 0]
    assert topic.drop_oldest(2) == 2 * SIZE
    assert (topic.start, topic.end, topic.size, all_of(topic)) == (2, 5, 3 * SIZE, [3, 4, 5])
    assert topic.drop_oldest(3) == 0
    assert [topic.drop_oldest(5) for _ in range(3)] == [2 * SIZE, SIZE, 0]
    assert (topic.start, topic.end, topic.size, topic.oldest_at) == (5, 5, 0, None)
    append(topic, 6)
    assert all_of(topic) == [6]
    assert ids_of(topic.message_at(5)) == [6]


def test_compaction_gives_memory_back() -> None:
    """A topic that lives long holds bookkeeping for what it has, not for what it had."""
    topic = filled()
    for n in range(20_000):
        append(topic, n)
        if n >= 10:
            topic.drop_oldest(topic.end)
    assert (topic.start, all_of(topic)) == (19_990, list(range(19_990, 20_000)))
    for kept in (topic.runs, topic.bases, topic.stored_at, topic.ids):
        assert len(kept) < 2100
    assert [ids_of(topic.message_at(p)) for p in (19_990, 19_999)] == [[19_990], [19_999]]


def test_an_empty_topic_may_begin_anywhere() -> None:
    """What a journal brings back keeps its positions."""
    store = Store(Bounds())
    topic = store.open_topic("n", "n:t")
    store.restore(topic, 100, frame(1) + frame(2))
    store.restore(topic, 102, frame(3))
    assert (topic.start, topic.end, store.total, all_of(topic)) == (100, 103, 3 * SIZE, [1, 2, 3])
    assert topic.after(2) == 102
    assert ids_of(topic.run_at(101)[0]) == [2]


def test_a_topic_is_one_by_its_name() -> None:
    """Names give numbers; the namespace is noted when it is first told."""
    store = Store(Bounds())
    first, other = store.open_topic("", "a:t"), store.open_topic("b", "b:t")
    assert store.open_topic("a", "a:t") is first
    assert (first.namespace, first.number, other.number) == ("a", 0, 1)
    assert store.open_topic("x", "a:t").namespace == "a"
    assert (store.topic(1), store.topic(2)) == (other, None)
    assert store.knows("a:t")
    assert not store.knows("c:t")


@pytest.mark.parametrize(
    "bounds", [Bounds(topic_bytes=5 * SIZE), Bounds(topic_count=5), Bounds(total_bytes=5 * SIZE)]
)
def test_history_is_bounded(bounds: Bounds) -> None:
    """By bytes, by count, and over all topics: the oldest goes, what somebody wants stays."""
    store = Store(bounds)
    topic = store.open_topic("n", "n:t")
    for n in range(20):
        append(store, n, topic=topic)
    assert (all_of(topic), store.total) == ([15, 16, 17, 18, 19], 5 * SIZE)
    cursor = reader(topic, 16)
    for n in range(20, 30):
        append(store, n, topic=topic)
    assert all_of(topic) == list(range(16, 30))
    cursor.acked = 28
    append(store, 30, topic=topic)
    assert all_of(topic) == list(range(26, 31))


def test_the_largest_topic_pays_for_the_server() -> None:
    """When all topics together have too much, a small one keeps its history."""
    store = Store(Bounds(total_bytes=10 * SIZE))
    small, large = store.open_topic("n", "n:small"), store.open_topic("n", "n:large")
    append(store, 1, topic=small)
    for n in range(50):
        append(store, n, topic=large)
    append(store, 2, topic=small)
    assert (all_of(small), len(all_of(large)), store.total) == ([1, 2], 8, 10 * SIZE)


def test_room_is_made_of_history_only() -> None:
    """A full topic has room as far as nobody wants its oldest; a large message fits if alone."""
    store = Store(Bounds(pending=5 * SIZE))
    topic = store.open_topic("n", "n:t")
    for n in range(5):
        append(store, n, topic=topic)
    cursor = reader(topic, 2)
    assert store.has_room(topic, 2 * SIZE)
    assert (topic.start, store.total) == (2, 3 * SIZE)
    assert not store.has_room(topic, 3 * SIZE)
    assert topic.start == 2
    cursor.acked = 5
    assert store.has_room(topic, 50 * SIZE), "larger than the limit, but alone"
    assert (topic.start, topic.end, store.total) == (5, 5, 0)


def test_where_the_oldest_must_go_it_is_counted() -> None:
    """Making room drops as little as it can and says how many messages that were."""
    store = Store(Bounds(pending=5 * SIZE))
    topic = store.open_topic("n", "n:t")
    for n in range(5):
        append(store, n, topic=topic)
    reader(topic, 0)
    assert [store.make_room(topic, size * SIZE) for size in (0, 1, 3)] == [0, 1, 2]
    assert (topic.start, topic.dropped, store.total) == (3, 3, 2 * SIZE)
    assert store.make_room(topic, 50 * SIZE) == 2


def test_old_history_goes() -> None:
    """By age, run by run, in every topic, and only what nobody wants."""
    store = Store(Bounds(age=10))
    topic, other = store.open_topic("n", "n:t"), store.open_topic("n", "n:o")
    for n in range(5):
        append(store, n, topic=topic, now=n)
    append(store, 9, topic=other, now=3)
    assert store.age(10) == []
    assert store.age(11.5) == [topic]
    assert (all_of(topic), store.total, topic.oldest_at) == ([2, 3, 4], 4 * SIZE, 2)
    reader(topic, 3)
    assert store.age(100) == [topic, other]
    assert (all_of(topic), all_of(other), store.total) == ([3, 4], [], 2 * SIZE)
    assert store.age(101) == []


def test_ids_are_looked_up_within_a_namespace_in_the_order_asked() -> None:
    """Other guilds' messages are not found; unknown ids are left out."""
    store = Store(Bounds())
    for number, (namespace, name) in enumerate([("a", "a:1"), ("a", "a:2"), ("b", "b:1")]):
        append(store, *range(number * 10, number * 10 + 3), topic=store.open_topic(namespace, name))
    found = b"".join(store.find("a", [12, 99, 0, 20, 11]))
    assert ids_of(found) == [12, 0, 11]
