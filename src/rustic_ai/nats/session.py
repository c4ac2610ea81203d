"""All that a backend has at the server: connection, stream, publisher and places, on one loop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, TypeVar

from rustic_ai.core.errors import BackendClosedError
from rustic_ai.core.messaging.backend.remote import Delivery, Output
from rustic_ai.nats.connection import PASSING, Connection
from rustic_ai.nats.history import History, Reading
from rustic_ai.nats.loop import LoopThread
from rustic_ai.nats.places import Bury, Places
from rustic_ai.nats.publisher import OVERHEAD, Publisher
from rustic_ai.nats.reader import Reader
from rustic_ai.nats.settings import Settings
from rustic_ai.nats.stream import Stream

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Session:
    """Connects on a thread of its own. Its coroutines run there; `call` and `soon` are for others.

    Args:
        settings: where to.
        name: of the thread.
        deliver: takes messages, on that thread.
        bury: makes a dead letter of a record.
        lost: is told when the server is given up, or a place was taken over.

    Raises:
        BackendUnavailableError: nobody is there.
        AccessError: the server does not let us in.
        MessagingConfigError: a setting is wrong.
    """

    def __init__(
        self,
        settings: Settings,
        name: str,
        *,
        deliver: Callable[[Sequence[Delivery]], None],
        bury: Bury,
        lost: Callable[[Exception], None],
    ) -> None:
        self.connection = Connection(settings, self._restore, lost)
        self.stream = Stream(self.connection, settings)
        self.history = History(self.connection, self.stream)
        self._publisher = Publisher(self.connection, self.stream)
        self.places = Places(
            self.connection,
            self.stream,
            deliver=deliver,
            bury=bury,
            store=self._store_dead,
            fail=lost,
        )
        self._thread = LoopThread(name)
        try:
            self._thread.call(self.connection.open())
        except BaseException:
            self._thread.close()
            raise

    # For other threads

    def call(self, work: Callable[[Session], Coroutine[Any, Any, T]]) -> T:
        """Run a coroutine of this session, and return what it returns."""
        return self._thread.call(work(self))

    def soon(self, action: Callable[[Session], object]) -> None:
        """Have something called on the loop."""
        self._thread.soon(action, self)

    @property
    def largest_record(self) -> int:
        """Bytes of the largest message that the server takes."""
        return self.connection.max_payload - OVERHEAD

    def close(self, deadline: float) -> None:
        """Leave all places, disconnect, and end the thread.

        Args:
            deadline: seconds for which places are left in order.
        """
        try:
            self._thread.call(self._closed(deadline))
        except BackendClosedError:
            logger.debug("the loop had ended")
        self._thread.close()

    async def _closed(self, deadline: float) -> None:
        if self.connection.is_usable:
            try:
                async with asyncio.timeout(deadline):
                    await self.places.close_all()
            except TimeoutError:
                logger.warning("NATS did not answer within %g s that we have left", deadline)
        await self.connection.close()

    # On the loop

    async def _restore(self) -> None:
        await self.stream.ensure()
        await self.places.restore()

    async def append(self, outputs: Sequence[Output]) -> None:
        """Store messages in their order."""
        await self._publisher.store([self._publisher.letter(output) for output in outputs])

    async def _store_dead(self, output: Output, name: str) -> None:
        await self._publisher.store_now(self._publisher.letter(output, name))

    async def commit(self, settled: Sequence[Delivery], outputs: Sequence[Output]) -> None:
        """Store outputs, then acknowledge.

        Raises:
            BackendUnavailableError: the server is gone, or the place another's; nothing was stored.
        """
        numbers = _by_reader(settled)
        if outputs:
            for reader, seqs in numbers.items():
                await self.connection.retried(partial(self._make_sure, reader, seqs[0]))
            await self.append(outputs)
        receipts = [(reader, reader.settle(seqs)) for reader, seqs in numbers.items()]
        await asyncio.gather(*(self._confirm(r, receipt) for r, receipt in receipts if receipt))

    async def _make_sure(self, reader: Reader, seq: int) -> None:
        if reader.failure is None and not await reader.is_sure(seq):
            await self.places.reattach(reader)
        if reader.failure is not None:
            raise reader.failure

    async def _confirm(self, reader: Reader, receipt: str) -> None:
        try:
            if not await reader.confirm(receipt):
                self.places.repair(reader)
        except PASSING:
            # Once there is a connection again, what comes again is told apart by its number.
            logger.debug("an acknowledgement may have been lost with its connection")

    def settle(self, settled: Sequence[Delivery]) -> None:
        """Note that deliveries are handled that nobody acknowledges: there is room for more."""
        for reader, seqs in _by_reader(settled).items():
            reader.settle(seqs)

    def end_reading(self, reading: Reading) -> None:
        """Take the consumer of somebody who read history away."""
        if self.connection.is_usable:
            self.connection.spawn(self.history.end(reading))


def _by_reader(settled: Sequence[Delivery]) -> dict[Reader, list[int]]:
    found: dict[Reader, list[int]] = {}
    for delivery in settled:
        reader, seq = delivery.token
        found.setdefault(reader, []).append(seq)
    return found
