"""Reading what the stream keeps of a topic, chunk by chunk."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
from dataclasses import dataclass, field
from typing import Any

from nats.aio.msg import Msg

from rustic_ai.nats.client import status_of
from rustic_ai.nats.connection import ANSWER_DEADLINE, Connection, LinkDownError
from rustic_ai.nats.names import new_consumer
from rustic_ai.nats.stream import Stored, Stream

_CHUNK = 256
_CHUNK_BYTES = 4 << 20
_IDLE_NS = 60 * 10**9
"""Nanoseconds after which the server forgets a reader that has not come to its end."""


@dataclass(slots=True)
class Reading:
    """How far a reader has come."""

    topic: str
    since_ms: int
    next: int = 0
    """Number to go on from; 0: it has not begun."""
    left: int = -1
    """Messages that it is still to read; -1: it has not begun."""
    consumer: str = ""


@dataclass(slots=True)
class _Pull:
    """What comes for one question for more."""

    wanted: int
    done: asyncio.Event = field(default_factory=asyncio.Event)
    got: list[Stored] = field(default_factory=list)
    gone: bool = False
    """Whether there is nobody to ask."""

    def take(self, message: Msg) -> None:
        """Keep a message, or see that this was all."""
        if status := status_of(message):
            self.gone = status == "503" or is_deletion(message)
            self.done.set()
            return
        self.got.append(Stored(sequence_of(message), message.data))
        if len(self.got) >= self.wanted:
            self.done.set()


def sequence_of(message: Msg) -> int:
    """Return the number that a message of a consumer has in the stream."""
    parts = message.reply.split(".")
    return int(parts[5 if len(parts) == 9 else 7])


def is_deletion(message: Msg) -> bool:
    """Say whether a word of the server says that a consumer is not there any more."""
    headers = message.headers
    return headers is not None and "Consumer Deleted" in headers.get("Description", "")


class History:
    """Reads with a consumer of its own that leaves no trace.

    Args:
        connection: to the server.
        stream: what is read.
    """

    def __init__(self, connection: Connection, stream: Stream) -> None:
        self._connection = connection
        self._stream = stream

    async def next_chunk(self, reading: Reading) -> list[Stored]:
        """Return what comes next; nothing: that was all.

        Raises:
            LinkDownError: the connection was lost; ask again.
        """
        if not reading.consumer:
            await self._begin(reading)
        if reading.left <= 0:
            return []
        try:
            got = await self._pull(reading)
        except BaseException:
            reading.consumer = ""  # nobody knows how far that one is
            raise
        if got:
            reading.next = got[-1].seq + 1
            reading.left -= len(got)
        else:
            reading.left = 0  # what was left has been trimmed away
        return got

    async def _pull(self, reading: Reading) -> list[Stored]:
        wanted = min(_CHUNK, reading.left)
        pull = _Pull(wanted)
        channel = await self._connection.listen(pull.take)
        limit = max(_CHUNK_BYTES, 2 * self._connection.max_payload)
        question = {"batch": wanted, "max_bytes": limit, "no_wait": True}
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{self._stream.name}.{reading.consumer}"
        try:
            data = json.dumps(question).encode()
            await self._connection.publish(subject, data, f"{channel.subject}.1")
            await self._connection.attempt(asyncio.wait_for(pull.done.wait(), ANSWER_DEADLINE))
        finally:
            await channel.close()
        if pull.gone:
            raise LinkDownError
        return pull.got

    async def _begin(self, reading: Reading) -> None:
        where: dict[str, Any] = {"deliver_policy": "all"}
        if reading.next:
            where = {"deliver_policy": "by_start_sequence", "opt_start_seq": reading.next}
        elif reading.since_ms > 0:
            since = dt.datetime.fromtimestamp(reading.since_ms / 1000, dt.UTC)
            where = {"deliver_policy": "by_start_time", "opt_start_time": since.isoformat()}
        name = new_consumer(reading.topic, "history")
        pending = await self._stream.add_consumer(
            name,
            reading.topic,
            ack_policy="none",
            inactive_threshold=_IDLE_NS,
            mem_storage=True,
            num_replicas=1,
            **where,
        )
        reading.consumer = name
        reading.left = pending if reading.left < 0 else min(reading.left, pending)

    async def end(self, reading: Reading) -> None:
        """Take the reader's consumer away."""
        if reading.consumer:
            consumer, reading.consumer = reading.consumer, ""
            await self._stream.drop_consumer(consumer)
