"""The server's mind beside a model of it: topics are lists, and clients know what they have seen.

What a topic holds is known from a watcher, who reads everything at once and holds nobody up.
"""

from __future__ import annotations

import itertools
import time
from collections import defaultdict

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from rustic_ai.core.messaging.backend.embedded_backend.config import Overflow
from rustic_ai.core.messaging.backend.embedded_backend.core import Core
from rustic_ai.core.messaging.backend.embedded_backend.protocol import (
    ACK_NOW,
    DURABLE,
    FROM_NOW,
    FROM_START,
    HEADER_SIZE,
    RESUME,
    Frame,
    Op,
    messages_in,
)
from rustic_ai.core.messaging.backend.embedded_backend.store import Bounds
from tests.unit.messaging.model import Client, Place, Reading, Word
from tests.unit.messaging.wire import Peer, ack, message, step, subscribe

TOPICS, SIZE, PENDING = 3, 64, 8
slots = st.integers(0, 2)
topics = st.integers(0, TOPICS - 1)
flags = st.sampled_from([0, ACK_NOW])


class CoreAndModel(RuleBasedStateMachine):
    """Clients publish, read, crash and come back; the model says what each of them may see."""

    @initialize(
        mode=st.sampled_from(["block", "drop_oldest"]),
        history=st.sampled_from([3, 1000]),
    )
    def begin(self, mode: Overflow, history: int) -> None:
        """Begin with three clients and some topics."""
        self.mode = mode
        self.numbers = itertools.count(1)  # with one for all runs, none could be repeated
        self.core = Core(Bounds(topic_count=history, pending=PENDING * SIZE, overflow=mode))
        self.watcher = Peer(self.core)
        self.logs: list[list[int]] = [[] for _ in range(TOPICS)]
        self.owner: dict[int, Client] = {}
        self.places: dict[tuple[int, str], Place] = {}
        self.dead: list[Client] = []
        self.clients = [Client(Peer(self.core)) for _ in range(3)]
        for topic in range(TOPICS):
            assert self.watcher.topic(f"space:{topic}") == topic
            self.watcher.send(subscribe(topic + 1, topic, flags=0, window=1000))

    # What clients do

    @rule(slot=slots, topic=topics, count=st.integers(1, 4), flag=flags)
    def publish(self, slot: int, topic: int, count: int, flag: int) -> None:
        """Send a run; every message of it is a unit."""
        client = self.clients[slot]
        self.transmit(client, [self.unit(client, [topic], flag) for _ in range(count)])

    @rule(slot=slots, to=st.lists(topics, min_size=1, max_size=3), flag=flags, data=st.data())
    def step(self, slot: int, to: list[int], flag: int, data: st.DataObject) -> None:
        """Send messages and acknowledgements in one."""
        client = self.clients[slot]
        acks = []
        for number, reading in client.readings.items():
            position = data.draw(st.integers(reading.place.low, reading.next))
            reading.place.high = max(reading.place.high, position)
            acks.append(ack(number, position))
            word = Word(len(client.units) + 1, number, reading.place, position, in_unit=True)
            client.words.append(word)
        self.transmit(client, [self.unit(client, to, flag, acks)])

    def unit(
        self, client: Client, to: list[int], flag: int, acks: list[bytes] | None = None
    ) -> bytes:
        """Make a unit that a client sends once its server has not got it."""
        messages = [(topic, next(self.numbers)) for topic in to]
        self.owner.update((id_, client) for _, id_ in messages)
        body = bytes(SIZE - HEADER_SIZE)
        frames = [message(topic, id_, body, flag) for topic, id_ in messages]
        frame = frames[0] if acks is None else step(*acks, *frames, flags=flag)
        client.units.append((messages, frame))
        return frame

    @rule(slot=slots, data=st.data())
    def acknowledge(self, slot: int, data: st.DataObject) -> None:
        """Say of one subscription that something was handled."""
        client = self.clients[slot]
        if client.connected and client.readings:
            number = data.draw(st.sampled_from(sorted(client.readings)))
            reading = client.readings[number]
            self.say(client, number, data.draw(st.integers(reading.place.low, reading.next)))

    def say(self, client: Client, number: int, position: int) -> None:
        """Acknowledge; the word waits behind a step of the same subscription."""
        place = client.readings[number].place
        place.high = max(place.high, position)
        behind = max((word.behind for word in client.words if word.place is place), default=0)
        client.words.append(Word(behind, number, place, position, in_unit=False))
        self.transmit(client, [ack(number, position)])

    @rule(
        slot=slots,
        topic=topics,
        name=st.sampled_from("ab"),
        durable=st.booleans(),
        window=st.integers(1, 5),
        start=st.sampled_from([FROM_START, FROM_NOW]),
    )
    def subscribe(
        self, slot: int, topic: int, name: str, durable: bool, window: int, start: int
    ) -> None:
        """Take a place; a lasting one is taken from whoever has it."""
        client = self.clients[slot]
        if client.peer.session.ended:  # it hears of that before it is answered
            self.read(slot)
        if not client.connected:
            return
        end = len(self.logs[topic])
        place, begins = self.places.get((topic, name)) if durable else None, None
        if place is None:
            low, high = (end, end) if start == FROM_NOW else (0, end)
            place = Place(topic, low, high)
        else:
            begins = place.low if self.mode == "block" else None
            self.take(place, client)
        if durable:
            self.places[topic, name] = place
        reading = Reading(place, name, window, durable, next=-1, begins=begins)
        number = next(self.numbers)
        client.readings[number] = reading
        asked = DURABLE if durable else 0
        frame = subscribe(number, topic, name, start=start, window=window, flags=asked)
        self.transmit(client, [frame])
        assert reading.next >= 0, "it was answered"

    def take(self, place: Place, taker: Client) -> None:
        """Forget readings whose place a session has got, and what others have to say of it."""
        for client in self.clients:
            for number, reading in list(client.readings.items()):
                if reading.place is place:
                    place.was_lost |= client.connected
                    del client.readings[number]
            if client is not taker:
                client.words = [word for word in client.words if word.place is not place]

    @rule(slot=slots)
    def read(self, slot: int) -> None:
        """Take what has come."""
        self.handle(self.clients[slot], self.clients[slot].peer.take())

    # How clients end, and come back

    @rule(slot=slots)
    def lose_connection(self, slot: int) -> None:
        """Lose the connection, with what is under way in both directions."""
        self.disconnect(self.clients[slot])

    def disconnect(self, client: Client) -> None:
        """Lose a connection; words that are not part of a unit are lost with it."""
        client.peer.lose()
        client.connected = False
        client.words = [w for w in client.words if w.in_unit and w.number in client.readings]
        for reading in client.readings.values():
            reading.place.was_lost = True

    @rule(slot=slots)
    def reconnect(self, slot: int) -> None:
        """Come back, maybe before the server has seen that the old connection is lost."""
        client = self.clients[slot]
        if client.connected:
            client.words = [w for w in client.words if w.in_unit and w.number in client.readings]
            for reading in client.readings.values():
                reading.place.was_lost = True
        client.peer = Peer(self.core, client.peer.client)
        client.connected = True
        self.settle()
        assert client.peer.units == self.stored(client), "exactly what was stored is counted"
        client.told = client.peer.units
        frames = [
            subscribe(
                number,
                reading.place.topic,
                reading.name,
                start=reading.next,
                window=reading.window,
                flags=RESUME | (DURABLE if reading.durable else 0),
            )
            for number, reading in client.readings.items()
        ]
        self.transmit(client, frames + [frame for _, frame in client.units[client.told :]])

    @rule(slot=slots, gracefully=st.booleans())
    def die(self, slot: int, gracefully: bool) -> None:
        """End, and begin as another client; lasting places wait, whatever else it had is gone."""
        client = self.clients[slot]
        if client.connected and gracefully and not client.peer.session.ended:
            client.peer.leave()
        else:
            for reading in client.readings.values():
                reading.place.was_lost = True
            client.peer.lose()
        self.dead.append(client)
        self.clients[slot] = Client(Peer(self.core))

    # What the server does

    def transmit(self, client: Client, frames: list[bytes]) -> None:
        """Send, and take what comes back."""
        if client.connected:
            ended = client.peer.session.ended
            self.handle(client, client.peer.take() if ended else client.peer.send(*frames))

    def handle(self, client: Client, frames: list[Frame]) -> None:
        """Check what a client gets against what it may get."""
        self.settle()
        for frame in frames:
            match frame.op:
                case Op.PUBLISHED:
                    assert client.told < frame.id <= self.stored(client)
                    client.told = frame.id
                case Op.SUBSCRIBE:
                    self.confirmed(client.readings[frame.aux], frame.id)
                case Op.DELIVER if frame.aux in client.readings:
                    self.delivered(client.readings[frame.aux], frame)
                case Op.ERROR:
                    assert b"another process has taken the place" in frame.body
                    self.disconnect(client)
                case Op.DELIVER:
                    pass  # it was on its way when another took the place
                case _:
                    raise AssertionError(frame)

    def confirmed(self, reading: Reading, position: int) -> None:
        """Check where a subscription begins."""
        place = reading.place
        if reading.next < 0:
            if reading.begins is not None:
                assert position == reading.begins, "behind what was acknowledged, neither more"
            else:
                dropped = self.core.store.topics[place.topic].start
                assert position <= max(place.high, dropped)
                place.low, place.high = max(place.low, position), max(place.high, position)
        elif reading.durable:
            if position != reading.next:  # the news of a gap was lost with the connection
                assert self.mode == "drop_oldest", "it goes on exactly where it was"
                assert position > reading.next
                place.low, place.high = max(place.low, position), max(place.high, position)
        else:  # a new place, with what is not its client's yet
            assert position >= reading.next
            place.low = place.high = position
        reading.next = position

    def delivered(self, reading: Reading, frame: Frame) -> None:
        """Check a delivery: the next messages, in order, none twice, within the window."""
        place = reading.place
        if frame.n == 0:
            assert self.mode == "drop_oldest" or not reading.durable, "nothing wanted was dropped"
            assert frame.id > reading.next
            place.low, place.high = max(place.low, frame.id), max(place.high, frame.id)
            reading.next = frame.id
            return
        if frame.id != reading.next:
            assert reading.next < frame.id <= place.high, "only what was handled may be left out"
        assert frame.id - place.high < reading.window
        assert frame.flags == 1 or place.was_lost
        got = [stored.id for stored in messages_in(frame.raw, HEADER_SIZE)]
        assert len(got) == frame.n
        assert got == self.logs[place.topic][frame.id : frame.id + frame.n]
        reading.next = frame.id + frame.n

    @invariant()
    def settle(self) -> None:
        """Have the watcher read everything; apply the words whose units are stored."""
        if not hasattr(self, "watcher"):
            return
        while frames := [f for f in self.watcher.take() if f.op == Op.DELIVER]:
            for frame in frames:
                log = self.logs[frame.topic]
                assert frame.id == len(log), "no position is used twice or left out"
                log += [stored.id for stored in messages_in(frame.raw, HEADER_SIZE)]
            for topic, log in enumerate(self.logs):
                self.core.received(self.watcher.session, ack(topic + 1, len(log)))
        for client in self.clients:
            stored = self.stored(client)
            for word in client.words:
                if word.behind <= stored:
                    word.place.low = max(word.place.low, word.position)
            client.words = [word for word in client.words if word.behind > stored]

    def stored(self, client: Client) -> int:
        """Return how many units of a client are stored; checks that they are whole, and first."""
        where = {id_: topic for topic, log in enumerate(self.logs) for id_ in log}
        whole = [sum(id_ in where for _, id_ in unit) for unit, _ in client.units]
        count = sum(map(bool, whole))
        assert whole == [len(unit) for unit, _ in client.units[:count]] + [0] * (
            len(whole) - count
        ), "units are stored whole or not at all, and in their order"
        return count

    @invariant()
    def every_message_is_where_it_belongs_once(self) -> None:
        """Each topic has each client's messages in the order in which it sent them."""
        if not hasattr(self, "watcher"):
            return
        for topic, log in enumerate(self.logs):
            by_owner: dict[Client, list[int]] = defaultdict(list)
            for id_ in log:
                by_owner[self.owner[id_]].append(id_)
            for client, got in by_owner.items():
                sent = [i for unit, _ in client.units for t, i in unit if t == topic]
                assert got == sent[: len(got)]

    @invariant()
    def memory_is_bounded(self) -> None:
        """No topic holds more than its limit, doubled for those who wait for nobody else."""
        if hasattr(self, "watcher"):
            for topic in self.core.store.topics:
                assert topic.size <= (2 * PENDING + 4) * SIZE

    def teardown(self) -> None:
        """Let everybody come back and read: nothing is missing, and nobody waits."""
        if not hasattr(self, "watcher"):
            return
        for slot in range(3):
            self.reconnect(slot)
        held = {reading.place for client in self.clients for reading in client.readings.values()}
        for (topic, name), place in self.places.items():
            if place not in held:
                self.subscribe(0, topic, name, True, 3, FROM_START)
        while self.catch_up():
            pass
        if any(client.peer.session.parked for client in self.clients):
            self.in_a_circle()
            return
        for client in self.clients:
            assert self.stored(client) == len(client.units) == client.told
            for reading in client.readings.values():
                assert reading.next == len(self.logs[reading.place.topic]), "all was delivered"

    def catch_up(self) -> bool:
        """Have everybody acknowledge what it has got; returns whether that brought anything."""
        before = [(client.told, [*map(repr, client.readings.values())]) for client in self.clients]
        now = time.monotonic()
        self.core.tick(now)
        self.core.tick(now + 0.1)
        for slot, client in enumerate(self.clients):
            self.read(slot)
            for number, reading in list(client.readings.items()):
                if reading.next > reading.place.low:
                    self.say(client, number, reading.next)
        after = [(client.told, [*map(repr, client.readings.values())]) for client in self.clients]
        return before != after

    def in_a_circle(self) -> None:
        """Whoever still waits needs room, and waits for somebody else to make it."""
        for session in (client.peer.session for client in self.clients):
            if session.parked:
                assert any(session in topic.waiting for topic in self.core.store.topics)
            for topic, run, *_ in session.parked[0].runs if session.parked else ():
                if session in topic.waiting:
                    assert not self.core.store.has_room(topic, len(run))
                    slowest = min(topic.cursors, key=lambda cursor: cursor.acked)
                    mine = slowest.session is session
                    assert not mine or topic.size + len(run) > 2 * PENDING * SIZE


CoreAndModel.TestCase.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)


class TestCoreAgainstItsModel(CoreAndModel.TestCase):  # type: ignore[misc,valid-type]
    """Any history of publishing, reading, crashes and returns shows what the model allows."""
