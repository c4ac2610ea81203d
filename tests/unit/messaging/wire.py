"""Clients of a `Core` without sockets, who speak in frames."""

from __future__ import annotations

import itertools
from typing import NamedTuple

from rustic_ai.core.messaging.backend.embedded_backend.access import NONCE_SIZE
from rustic_ai.core.messaging.backend.embedded_backend.core import Core
from rustic_ai.core.messaging.backend.embedded_backend.greeting import CLIENT
from rustic_ai.core.messaging.backend.embedded_backend.protocol import (
    ACK_NOW,
    DURABLE,
    FROM_START,
    HEADER_SIZE,
    MAGIC,
    VERSION,
    Frame,
    FrameReader,
    Op,
    Query,
    messages_in,
    pack,
    pack_names,
    pack_publish,
)

NONCE = bytes(range(NONCE_SIZE))
_clients = itertools.count(1_000)


def hello(client: int, version: int = VERSION) -> bytes:
    """Return a client's greeting."""
    return pack(Op.HELLO, CLIENT.pack(client) + NONCE, id=MAGIC, n=version)


def ack(subscription: int, position: int) -> bytes:
    """Return the word that what is before `position` was handled."""
    return pack(Op.ACK, aux=subscription, id=position)


def message(topic: int, message_id: int, body: bytes = b"", flags: int = 0) -> bytes:
    """Return the frame of a message."""
    return pack_publish(topic, message_id, body, flags=flags)


def step(*frames: bytes, flags: int = ACK_NOW) -> bytes:
    """Return a step."""
    return pack(Op.STEP, b"".join(frames), flags=flags)


def subscribe(
    number: int,
    topic: int,
    name: str = "s",
    *,
    start: int = FROM_START,
    window: int = 100,
    flags: int = DURABLE,
    max_attempts: int = 0,
) -> bytes:
    """Return the frame that asks for a subscription."""
    body = pack_names(name) + bytes([max_attempts])
    return pack(Op.SUBSCRIBE, body, flags=flags, aux=number, topic=topic, n=window, id=start)


class Got(NamedTuple):
    """A message as a subscriber gets it."""

    position: int
    id: int
    attempt: int


def got(frames: list[Frame], subscription: int = 1) -> list[Got]:
    """Return the messages among frames."""
    return [
        Got(frame.id + index, stored.id, frame.flags)
        for frame in frames
        if frame.op == Op.DELIVER and frame.aux == subscription
        for index, stored in enumerate(messages_in(frame.raw, HEADER_SIZE))
    ]


def ids(frames: list[Frame], subscription: int = 1) -> list[int]:
    """Return the ids of the messages among frames."""
    return [each.id for each in got(frames, subscription)]


def ops(frames: list[Frame]) -> list[int]:
    """Return the kinds of frames."""
    return [frame.op for frame in frames]


class Peer:
    """A client of a core.

    Args:
        core: the core.
        client: its number; None: a new one.
        greet: whether to do so at once.
        trusted: whether its socket proves who it is.
    """

    def __init__(
        self,
        core: Core,
        client: int | None = None,
        *,
        greet: bool = True,
        trusted: bool = True,
    ) -> None:
        self.core = core
        self.client = next(_clients) if client is None else client
        self.session = core.connected("a test", trusted=trusted)
        self._reader = FrameReader(1 << 30)
        self.units = 0
        if greet:
            (answer,) = self.send(hello(self.client))
            assert answer.op == Op.HELLO
            self.units = answer.id

    def send(self, *frames: bytes) -> list[Frame]:
        """Send frames in one piece; return what comes back."""
        self.core.received(self.session, b"".join(frames))
        return self.take()

    def take(self) -> list[Frame]:
        """Return what has come, as a socket that takes everything would."""
        frames: list[Frame] = []
        while self.session.output:
            data = b"".join(self.session.output)
            self.session.output.clear()
            self.session.output_size = 0
            frames += self._reader.feed(data)
            self.core.drained()
        return frames

    def topic(self, name: str = "space:t", namespace: str = "space") -> int:
        """Return the number of a topic."""
        answers = self.send(pack(Op.TOPIC, pack_names(namespace, name), n=7))
        (number,) = (frame.topic for frame in answers if frame.op == Op.TOPIC)
        return number

    def publish(self, topic: int, *message_ids: int, body: bytes = b"") -> list[Frame]:
        """Send messages in one run, and wait for the word that they are stored."""
        return self.send(*(message(topic, i, body, ACK_NOW) for i in message_ids))

    def history(self, topic: int) -> list[int]:
        """Return the ids of all messages of a topic."""
        answers = self.send(pack(Op.QUERY, n=9, aux=Query.FROM_POSITION, topic=topic))
        (rows,) = (frame for frame in answers if frame.op == Op.ROWS)
        return [stored.id for stored in messages_in(rows.body)]

    def lose(self) -> None:
        """End without a word."""
        self.core.disconnected(self.session)

    def leave(self) -> None:
        """End in good order."""
        self.send(pack(Op.GOODBYE))
        self.core.disconnected(self.session)
