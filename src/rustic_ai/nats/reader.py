"""Fetches the messages of one place, and acknowledges them. Everything here runs on the loop."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from functools import partial

import nats.errors
from nats.aio.msg import Msg

from rustic_ai.core.messaging.backend.remote import Delivery, Place
from rustic_ai.nats.client import status_of
from rustic_ai.nats.connection import ANSWER_DEADLINE, Channel, Connection
from rustic_ai.nats.history import is_deletion, sequence_of
from rustic_ai.nats.register import PlaceRecord, attempt_of

IN_HAND = 1024
"""Messages of one place that are fetched and not handled yet, at most."""
_IN_HAND_BYTES = 32 << 20
_BATCH = 512
_BATCH_BYTES = 8 << 20
_PULL_SECONDS = 60.0
_SURE_SECONDS = 1.0
"""For which a place that the server said is ours is taken to be ours still."""


class Reader:
    """Reads for a place through one consumer after the other.

    Args:
        place: what is read for.
        connection: to the server.
        stream: its name.
        deliver: takes messages.
        astray: is called when the consumer is not there any more.
    """

    def __init__(
        self,
        place: Place,
        connection: Connection,
        stream: str,
        deliver: Callable[[Sequence[Delivery]], None],
        astray: Callable[[Reader], None],
    ) -> None:
        self.place = place
        self.consumer = ""
        self.start = 0
        """Where a place that is not durable begins."""
        self.born = ""
        self.record: PlaceRecord | None = None
        """Of a durable place, as it was when its consumer was made."""
        self.settled = 0
        """Number up to which everything is handled."""
        self.ended = False
        self.failure: Exception | None = None
        """Why it has ended by itself."""
        self._connection = connection
        self._stream = stream
        self._deliver = deliver
        self._astray = astray
        self._received = 0
        self._receipts: dict[int, str] = {}
        """Number of a message in hand -> where its acknowledgement goes."""
        self._sizes: dict[int, int] = {}
        self._bytes = 0
        self._arrived: list[Delivery] = []
        self._channel: Channel | None = None
        self._pulls = 0
        self._pulling = False
        self._asked = 0
        self._renewal: asyncio.TimerHandle | None = None
        self._sure_until = 0.0

    @property
    def received(self) -> int:
        """Number of the last message that was handed on."""
        return self._received

    async def begin(self, consumer: str) -> None:
        """Read through another consumer, which may begin with messages that are in hand."""
        self._close_channel()
        self._receipts.clear()
        self.consumer = consumer
        self._sure_until = 0.0
        self._channel = await self._connection.listen(partial(self._take, consumer))
        self._ask()

    def restart(self) -> None:
        """Take the numbers of another stream, which begins anew."""
        self._received = self.settled = 0
        self._receipts.clear()

    def stop(self) -> None:
        """Fetch nothing more."""
        self.ended = True
        self._close_channel()
        self._arrived.clear()

    def _close_channel(self) -> None:
        self._end_pull()
        channel, self._channel = self._channel, None
        if channel is not None:
            self._connection.spawn(channel.close())

    # Fetching: one question at a time, for as many as there is room for

    def _ask(self) -> None:
        room = IN_HAND - len(self._sizes)
        if self._pulling or self._channel is None or room < _BATCH or self._bytes >= _IN_HAND_BYTES:
            return
        self._asked = min(_BATCH, room)
        self._pulling = True
        self._pulls += 1
        limit = max(_BATCH_BYTES, 2 * self._connection.max_payload)
        question = {
            "batch": self._asked,
            "max_bytes": limit,
            "expires": int(_PULL_SECONDS * 1e9),
        }
        loop = asyncio.get_running_loop()
        self._renewal = loop.call_later(_PULL_SECONDS + ANSWER_DEADLINE, self._again)
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{self._stream}.{self.consumer}"
        data = json.dumps(question).encode()
        reply = f"{self._channel.subject}.{self._pulls}"
        self._connection.spawn(self._connection.publish(subject, data, reply))

    def _end_pull(self) -> None:
        self._pulling = False
        if self._renewal is not None:
            self._renewal.cancel()
            self._renewal = None

    def _again(self) -> None:
        self._end_pull()
        self._ask()

    def _take(self, consumer: str, message: Msg) -> None:
        if consumer != self.consumer:
            return
        status = status_of(message)
        if status:
            if message.subject.rpartition(".")[2] != str(self._pulls):
                return  # about a question before
            self._end_pull()
            if status == "503" or is_deletion(message):
                self._astray(self)
            else:
                self._ask()
            return
        self._asked -= 1
        if not self._asked:
            self._end_pull()
        self._keep(message)
        self._ask()

    def _keep(self, message: Msg) -> None:
        seq = sequence_of(message)
        if seq <= self.settled:  # handled, but the word of it was lost
            self._connection.spawn(self._connection.publish(message.reply, b"+ACK"))
            return
        self._receipts[seq] = message.reply
        if seq <= self._received:
            return
        self._received = seq
        size = len(message.data)
        self._sizes[seq] = size
        self._bytes += size
        attempt = attempt_of(self.record, seq) if self.record is not None else 1
        if not self._arrived:
            asyncio.get_running_loop().call_soon(self._hand_on)
        self._arrived.append(Delivery(self.place, message.data, attempt, (self, seq)))

    def _hand_on(self) -> None:
        arrived, self._arrived = self._arrived, []
        if arrived and not self.ended:
            self._deliver(arrived)

    # Acknowledging

    def settle(self, numbers: Sequence[int]) -> str:
        """Note that messages are handled; returns where the word of it goes, '' for nowhere."""
        receipt = ""
        for seq in numbers:
            self.settled = max(self.settled, seq)
            self._bytes -= self._sizes.pop(seq, 0)
            receipt = self._receipts.pop(seq, "")
        self._ask()
        return receipt if self.place.durable else ""

    async def confirm(self, receipt: str) -> bool:
        """Acknowledge a message and all before it; False: it is another's by now.

        Raises:
            LinkDownError: nobody knows whether it was heard; after a reconnection it is again.
        """
        return await self._told(receipt, b"+ACK")

    async def is_sure(self, seq: int) -> bool:
        """Say whether the place is still ours, as far as a recent word of the server goes."""
        loop = asyncio.get_running_loop()
        receipt = self._receipts.get(seq, "")
        if not self.place.durable or not receipt or loop.time() < self._sure_until:
            return True
        return await self._told(receipt, b"+WPI")

    async def _told(self, receipt: str, word: bytes) -> bool:
        asked = asyncio.get_running_loop().time()
        consumer = self.consumer
        try:
            await self._connection.ask(receipt, word)
        except nats.errors.NoRespondersError:
            return consumer != self.consumer  # it has been taken from us, or was made anew
        self._sure_until = asked + _SURE_SECONDS
        return True
