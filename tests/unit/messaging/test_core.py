"""The server's mind without I/O: greeting, topics, publishing, questions, limits."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from typing import Any

import pytest

from rustic_ai.core.errors import ProtocolError
from rustic_ai.core.messaging.backend.embedded_backend.access import NONCE_SIZE, matches, proof
from rustic_ai.core.messaging.backend.embedded_backend.core import Core
from rustic_ai.core.messaging.backend.embedded_backend.limits import Limits
from rustic_ai.core.messaging.backend.embedded_backend.protocol import (
    ACK_NOW,
    FROM_NOW,
    HEADER,
    MAGIC,
    MAX_GREETING,
    VERSION,
    Frame,
    Op,
    Query,
    pack,
    pack_names,
)
from tests.unit.messaging.wire import (
    NONCE,
    Peer,
    ack,
    got,
    hello,
    ids,
    message,
    ops,
    step,
    subscribe,
)

TOKEN = b"t" * 32
OPEN = pack(Op.TOPIC, pack_names("n", "n:t"), n=1)


def query(kind: Query, *, topic: int = 0, id_: int = 0, body: bytes = b"") -> bytes:
    """Return a question."""
    return pack(Op.QUERY, body, n=5, aux=kind, topic=topic, id=id_)


def statistics(peer: Peer) -> dict[str, Any]:
    """Ask for the statistics."""
    (rows,) = (f for f in peer.send(query(Query.STATISTICS)) if f.op == Op.ROWS)
    facts: dict[str, Any] = json.loads(rows.body)
    return facts


# Greeting


def test_a_client_is_told_limits_epoch_and_its_units() -> None:
    """The answer to a greeting has all that a client must know to go on."""
    core = Core(limits=Limits(max_frame=5000, max_payload=9000), epoch=77, life=78)
    peer = Peer(core, 3)
    peer.publish(peer.topic(), 1, 2)
    peer.lose()
    again = Peer(core, 3, greet=False)
    (answer,) = again.send(hello(3))
    assert (answer.op, answer.n, answer.id, answer.body) == (
        Op.HELLO,
        5000,
        2,
        struct.pack("<QQQ", 77, 9000, 78),
    )


@pytest.mark.parametrize(
    ("first", "reason"),
    [
        (OPEN, "not the greeting"),
        (message(0, 1), "not the greeting"),
        (pack(Op.HELLO, bytes(24), id=MAGIC + 1, n=VERSION), "not the greeting"),
        (hello(1, VERSION + 1), f"version {VERSION + 1} of the protocol, the server {VERSION}"),
        (hello(1, 0), "version 0"),
        (pack(Op.HELLO, bytes(23), id=MAGIC, n=VERSION), "without client and nonce"),
        (pack(Op.HELLO, bytes(25), id=MAGIC, n=VERSION), "without client and nonce"),
        (pack(Op.HELLO, bytes(MAX_GREETING), id=MAGIC, n=VERSION), "a frame of 280 bytes"),
        (HEADER.pack((1 << 32) - 1, Op.HELLO, 0, 0, 0, VERSION, MAGIC), "4,294,967,295 bytes"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "bytes"),
    ],
)
def test_strangers_get_no_further(first: bytes, reason: str) -> None:
    """Another protocol, another version, or no greeting ends the session; nothing was done."""
    core = Core()
    stranger = Peer(core, greet=False)
    with pytest.raises(ProtocolError, match=reason):
        stranger.send(first)
    assert not stranger.session.greeted
    assert core.store.topics == []
    assert not stranger.session.buffer


def challenged(core: Core, client: int = 1) -> tuple[Peer, bytes]:
    """Greet over a socket that proves nothing; return the server's nonce."""
    peer = Peer(core, client, greet=False, trusted=False)
    (challenge,) = peer.send(hello(client))
    assert challenge.op == Op.CHALLENGE
    nonce, shown = challenge.body[:NONCE_SIZE], challenge.body[NONCE_SIZE:]
    assert matches(shown, proof(TOKEN, "server", NONCE, nonce)), "the server proves itself first"
    return peer, nonce


def test_who_knows_the_token_comes_in() -> None:
    """Both sides prove that they know it, and nobody sends it."""
    peer, nonce = challenged(Core(token=TOKEN), 9)
    assert not peer.session.greeted
    (answer,) = peer.send(pack(Op.PROOF, proof(TOKEN, "client", NONCE, nonce)))
    assert answer.op == Op.HELLO
    assert peer.topic() == 0


def test_bytes_behind_the_proof_are_read_at_once() -> None:
    """What a client sends together with its proof is answered without waiting for more.

    The prototype lost it: transport.md, bug 5.
    """
    peer, nonce = challenged(Core(token=TOKEN))
    shown = pack(Op.PROOF, proof(TOKEN, "client", NONCE, nonce))
    answers = peer.send(shown, OPEN, message(0, 1, flags=ACK_NOW))
    assert ops(answers) == [Op.HELLO, Op.TOPIC, Op.PUBLISHED]


def test_bytes_behind_the_greeting_are_read_at_once() -> None:
    """The same where no proof is asked for, however the bytes are cut."""
    stream = hello(1) + OPEN + message(0, 1, flags=ACK_NOW)
    for cut in range(1, len(stream)):
        peer = Peer(Core(token=TOKEN), greet=False)
        answers = peer.send(stream[:cut]) + peer.send(stream[cut:])
        assert ops(answers) == [Op.HELLO, Op.TOPIC, Op.PUBLISHED]


@pytest.mark.parametrize(
    "answer",
    [
        lambda nonce: pack(Op.PROOF, proof(TOKEN[:-1] + b"x", "client", NONCE, nonce)),
        lambda nonce: pack(Op.PROOF, proof(TOKEN, "server", NONCE, nonce)),
        lambda nonce: pack(Op.PROOF, proof(TOKEN, "client", nonce, NONCE)),
        lambda nonce: pack(Op.PROOF, proof(TOKEN, "client", NONCE, nonce)[:-1]),
        lambda nonce: pack(Op.PROOF),
        lambda nonce: pack(Op.TOPIC, proof(TOKEN, "client", NONCE, nonce)),
        lambda nonce: hello(1),
    ],
)
def test_a_wrong_proof_ends_the_session(answer: Callable[[bytes], bytes]) -> None:
    """Of another token, of the other side, cut off, or none."""
    peer, nonce = challenged(Core(token=TOKEN))
    with pytest.raises(ProtocolError, match="does not know the token"):
        peer.send(answer(nonce), OPEN)
    assert not peer.session.greeted
    assert peer.core.store.topics == []


def test_a_proof_of_another_connection_is_worth_nothing() -> None:
    """What was overheard on one connection does not open the next."""
    core = Core(token=TOKEN)
    peer, nonce = challenged(core)
    shown = pack(Op.PROOF, proof(TOKEN, "client", NONCE, nonce))
    peer.send(shown)
    other, _ = challenged(core, 2)
    with pytest.raises(ProtocolError, match="does not know the token"):
        other.send(shown)


def test_the_old_session_of_a_client_is_evicted() -> None:
    """A client that comes back takes its place before its old connection is seen to be lost."""
    core = Core()
    old = Peer(core, 5)
    topic = old.topic()
    old.send(subscribe(1, topic, flags=0))
    old.publish(topic, 1)
    new = Peer(core, 5)
    assert (core.evicted, old.session.gone, new.units) == ([old.session], True, 1)
    old.lose()
    new.publish(topic, 2)
    assert old.take() == []
    assert Peer(core, 5).units == 2


# Topics and messages


def test_a_topic_has_one_number_for_all() -> None:
    """Whoever asks for a name gets its number, and each question its own answer."""
    core = Core()
    one, other = Peer(core), Peer(core)
    assert [one.topic("n:a"), one.topic("n:b"), other.topic("n:a"), other.topic("n:c")] == [
        0,
        1,
        0,
        2,
    ]
    (answer,) = one.send(pack(Op.TOPIC, pack_names("n", "n:b"), n=12345))
    assert (answer.n, answer.topic) == (12345, 1)


def test_messages_are_stored_and_forwarded_as_they_came() -> None:
    """A subscriber, and a reader of history, get the publisher's bytes."""
    core = Core()
    publisher, subscriber = Peer(core), Peer(core)
    topic = publisher.topic()
    subscriber.send(subscribe(3, topic, start=FROM_NOW, flags=0))
    frames = [message(topic, n, bytes([n]) * n, flags=n % 4) for n in range(6)]
    publisher.send(*frames)
    (delivery,) = subscriber.take()
    assert (delivery.op, delivery.aux, delivery.n, delivery.id) == (Op.DELIVER, 3, 6, 0)
    assert delivery.body == b"".join(frames)
    (rows,) = (f for f in publisher.send(query(Query.FROM_POSITION, topic=topic)) if f.n == 5)
    assert rows.body == b"".join(frames)


def test_messages_of_several_topics_in_one_piece_go_where_they_belong() -> None:
    """Runs end where the topic changes, and where a frame is not complete yet."""
    core = Core()
    peer = Peer(core)
    a, b = peer.topic("n:a"), peer.topic("n:b")
    stream = b"".join(message(t, i, b"body") for i, t in enumerate([a, a, b, a, b, b]))
    for cut in (1, 30, 60, 90, 130, len(stream) - 1):
        peer.send(stream[:cut])
        peer.send(stream[cut:])
    assert peer.history(a) == [0, 1, 3] * 6
    assert peer.history(b) == [2, 4, 5] * 6


def words(frames: list[Frame]) -> list[int]:
    """Return what the server said about units that are stored."""
    return [frame.id for frame in frames if frame.op == Op.PUBLISHED]


def test_who_waits_is_told_at_once_others_a_little_later() -> None:
    """The word comes with the flag, after 128 units, or after 5 ms."""
    core = Core()
    peer = Peer(core)
    topic = peer.topic()
    assert words(peer.publish(topic, 1)) == [1]
    assert words(peer.send(message(topic, 2))) == []
    assert words(peer.send(message(topic, 3))) == []
    wait = core.tick(100.0)
    assert wait is not None
    assert 0 < wait <= 0.005
    assert words(peer.take()) == []
    core.tick(100.004)
    assert words(peer.take()) == []
    core.tick(100.0051)
    assert words(peer.take()) == [3]
    assert words(peer.send(*(message(topic, n) for n in range(127)))) == []
    assert words(peer.send(message(topic, 1))) == [131]


def test_the_word_travels_with_other_output() -> None:
    """Whoever is written to anyway is told of its units in the same piece, if they are some."""
    core = Core()
    peer = Peer(core)
    topic, question = peer.topic(), pack(Op.TOPIC, pack_names("n", "n:t"), n=1)
    core.take_dirty()
    for count, told in ((7, []), (1, [8])):
        messages = b"".join(message(topic, n) for n in range(count))
        core.received(peer.session, messages + question)
        assert core.dirty
        assert core.take_dirty() == [peer.session]
        assert not core.dirty
        assert words(peer.take()) == told


def test_an_idle_core_needs_no_clock() -> None:
    """Without messages and without anybody who waits nothing has to happen."""
    core = Core()
    core.tick(1.0)
    assert core.tick(1.1) is None
    Peer(core).topic()
    assert core.tick(1.2) is None


# Steps


def test_a_step_is_applied_whole() -> None:
    """Acknowledgements and messages of several topics count as one unit."""
    core = Core()
    peer = Peer(core)
    a, b = peer.topic("n:a"), peer.topic("n:b")
    peer.publish(a, 1, 2)
    peer.send(subscribe(1, a))
    answers = peer.send(step(ack(1, 2), message(a, 3), message(b, 4), message(b, 5), message(a, 6)))
    assert words(answers) == [3]
    assert (peer.history(a), peer.history(b)) == ([1, 2, 3, 6], [4, 5])
    peer.lose()
    assert ids(Peer(core).send(subscribe(1, a))) == [3, 6]
    assert Peer(core, peer.client).units == 3


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (step(message(0, 9)), "kind 15 in a step"),
        (pack(Op.SUBSCRIBE, pack_names("s"), topic=0, n=1), "kind 5 in a step"),
        (pack(Op.GOODBYE), "kind 12 in a step"),
        (pack(99), "kind 99 in a step"),  # type: ignore[arg-type]
        (message(77, 9), "topic number 77"),
        (ack(1, 3), "before it was delivered"),
        (b"garbage", "cut off"),
        (message(0, 9)[:-1], "cut off"),
        (message(0, 9, b"body")[:-1], "a frame of 28 bytes in a step"),
        (HEADER.pack(0, Op.PUBLISH, 0, 0, 0, 0, 0), "a frame of 0 bytes in a step"),
        (HEADER.pack((1 << 32) - 1, Op.ACK, 0, 0, 0, 0, 0), "4,294,967,295 bytes in a step"),
    ],
)
@pytest.mark.parametrize("place", ["first", "middle", "last"])
def test_a_step_with_anything_wrong_is_not_applied_at_all(
    bad: bytes, reason: str, place: str
) -> None:
    """Nested steps, unknown topics, garbage: the session ends, and nothing of it was stored.

    The prototype recursed into nested steps: transport.md, bug 4.
    """
    core = Core()
    peer = Peer(core, 1)
    topic = peer.topic()
    peer.publish(topic, 1, 2)
    peer.send(subscribe(1, topic))
    good = [ack(1, 1), message(topic, 3)]
    good.insert({"first": 0, "middle": 1, "last": 2}[place], bad)
    with pytest.raises(ProtocolError, match=reason if place == "last" else "step|topic|before"):
        peer.send(step(*good))
    assert peer.history(topic) == [1, 2]
    peer.lose()
    assert Peer(core, 1).units == 2
    assert [each.position for each in got(Peer(core).send(subscribe(1, topic)))] == [0, 1]


def test_a_step_without_subscription_still_counts() -> None:
    """An acknowledgement that crossed the end of its subscription does no harm."""
    peer = Peer(Core())
    topic = peer.topic()
    assert words(peer.send(step(ack(44, 10), message(topic, 1)))) == [1]
    assert words(peer.send(step())) == [2]
    assert peer.send(ack(44, 10)) == []
