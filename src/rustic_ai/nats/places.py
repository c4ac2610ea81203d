"""Places of subscribers: taken, taken over after a crash, left, given up. Runs on the loop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import nats.js.errors
from nats.js.api import ConsumerInfo

from rustic_ai.core.errors import BackendUnavailableError, MessagingError
from rustic_ai.core.messaging.backend.remote import Delivery, Output, Place
from rustic_ai.nats import register
from rustic_ai.nats.connection import Connection
from rustic_ai.nats.names import key_of, name_of, new_consumer, token_of
from rustic_ai.nats.reader import IN_HAND, Reader
from rustic_ai.nats.register import PlaceRecord, Progress
from rustic_ai.nats.stream import Stored, Stream

logger = logging.getLogger(__name__)

_NEVER_NS = 10 * 365 * 24 * 3600 * 10**9
"""Nanoseconds after which the server would deliver again by itself: a handler may take any time."""
_IDLE_NS = 600 * 10**9
"""Nanoseconds after which the server forgets a reader without a durable place that was killed."""
_CONFLICT_PAUSE = 0.02

Bury = Callable[[Place, bytes, int, str], Output | None]


class Entry(NamedTuple):
    """A record as it stands in the bucket; revision 0: it is not there."""

    record: PlaceRecord | None
    revision: int


class TakenOverError(Exception):
    """A place belongs to somebody else by now."""

    def __init__(self, as_error: BackendUnavailableError) -> None:
        super().__init__(str(as_error))
        self.as_error = as_error


class Places:
    """Connects subscriptions to consumers.

    Args:
        connection: to the server.
        stream: what is read.
        deliver: takes messages.
        bury: makes a dead letter of a record.
        store: stores an output under a name by which it is known again.
        fail: is told when a place was taken over, or cannot be read any more.
    """

    def __init__(
        self,
        connection: Connection,
        stream: Stream,
        *,
        deliver: Callable[[Sequence[Delivery]], None],
        bury: Bury,
        store: Callable[[Output, str], Any],
        fail: Callable[[Exception], None],
    ) -> None:
        self._connection = connection
        self._stream = stream
        self._deliver = deliver
        self._bury = bury
        self._store = store
        self._fail = fail
        self._readers: dict[Place, Reader] = {}
        self._repairs: dict[Reader, asyncio.Task[None]] = {}

    # Opening

    async def open(self, place: Place) -> None:
        """Read for a place from now on. May be called again for one that is half open."""
        reader = self._readers.get(place)
        if reader is None:
            reader = Reader(place, self._connection, self._stream.name, self._deliver, self.repair)
        await self._attach(reader, resumed=False)
        self._readers[place] = reader

    async def restore(self) -> None:
        """Go on with all places through a new connection."""
        for reader in list(self._readers.values()):
            await self.reattach(reader)

    async def reattach(self, reader: Reader) -> None:
        """Go on with a place through another consumer, or end where it is ours no more."""
        if reader.ended:
            return
        try:
            if not await self._attach(reader, resumed=True):
                reader.stop()
                self._readers.pop(reader.place, None)
        except TakenOverError as e:
            self._end(reader, e.as_error)

    def _end(self, reader: Reader, failure: Exception) -> None:
        reader.stop()
        reader.failure = failure
        self._fail(failure)

    async def _attach(self, reader: Reader, *, resumed: bool) -> bool:
        """Give a reader a consumer; False: its place has been given up meanwhile."""
        if reader.born and reader.born != self._stream.born:
            reader.restart()
            reader.start = 1
            resumed = False
        if not reader.place.durable:
            await self._attach_passing(reader)
        elif not await self._attach_durable(reader, resumed=resumed):
            return False
        reader.born = self._stream.born
        return True

    async def _attach_passing(self, reader: Reader) -> None:
        place, old = reader.place, reader.consumer
        if not reader.start:
            reader.start = 1 if place.from_start else await self._stream.last_seq() + 1
        consumer = new_consumer(place.topic, place.subscriber)
        await self._add(place, consumer, max(reader.start, reader.received + 1))
        await reader.begin(consumer)
        if old:
            await self._stream.drop_consumer(old)

    async def _attach_durable(self, reader: Reader, *, resumed: bool) -> bool:
        place = reader.place
        key = key_of(place.topic, place.subscriber)
        while True:
            entry = await self._entry(key)
            if entry.record is None and resumed:
                return False
            if resumed and entry.record is not None and entry.record.owner != self._me:
                raise TakenOverError(self._taken_over(place))
            old = entry.record or await self._new_record(place, fresh=bool(reader.born))
            ready = await self._position(place, register.of_stream(old, self._stream.born))
            ready = register.went_on(ready, reader.settled)
            consumer = new_consumer(place.topic, place.subscriber)
            record = register.taken(ready, consumer, self._me)
            if await self._write(key, record, entry.revision):
                break
            await asyncio.sleep(_CONFLICT_PAUSE)
        reader.record = record
        await self._add(place, consumer, record.next)
        if old.consumer:
            await self._stream.drop_consumer(old.consumer)
        await reader.begin(consumer)
        return True

    async def _position(self, place: Place, record: PlaceRecord) -> PlaceRecord:
        """Return a record with the position to go on from; a hopeless message is buried."""
        if not record.consumer:
            return record
        progress = _progress(await self._stream.consumer(record.consumer))
        if progress is None:
            return record
        ready = register.went_on(record, progress.floor)
        if not register.is_crash(record, progress, self._me):
            return ready
        front = await self._stream.first_from(place.topic, ready.next)
        if front is None:
            return ready
        ready = register.crashed(ready, front.seq, progress.delivered)
        if place.max_attempts and ready.crashes >= place.max_attempts:
            await self._give_up_message(place, front, ready.crashes)
            ready = register.buried(ready)
        return ready

    async def _give_up_message(self, place: Place, front: Stored, crashes: int) -> None:
        reason = f"its process was lost {crashes} times while it was being handled"
        dead = self._bury(place, front.record, crashes, reason)
        if dead is not None:
            key = key_of(place.topic, place.subscriber)
            await self._store(dead, f"dead-{key}-{front.seq}-{self._stream.born}")

    async def _new_record(self, place: Place, *, fresh: bool) -> PlaceRecord:
        """Return the record of a new place; `fresh`: the stream is younger than the place."""
        start = 1 if place.from_start or fresh else await self._stream.last_seq() + 1
        return PlaceRecord(
            topic=place.topic, subscriber=place.subscriber, born=self._stream.born, next=start
        )

    async def _add(self, place: Place, consumer: str, start: int) -> None:
        config: dict[str, Any] = {
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": max(1, start),
            "metadata": {
                "topic": token_of(place.topic),
                "subscriber": token_of(place.subscriber),
                "owner": self._me,
            },
        }
        if place.durable:
            config |= {
                "durable_name": consumer,
                "ack_policy": "all",
                "ack_wait": _NEVER_NS,
                "max_ack_pending": IN_HAND,
            }
        else:
            config |= {
                "ack_policy": "none",
                "inactive_threshold": _IDLE_NS,
                "mem_storage": True,
                "num_replicas": 1,
            }
        await self._stream.add_consumer(consumer, place.topic, **config)

    @property
    def _me(self) -> str:
        return self._connection.inbox

    def _taken_over(self, place: Place) -> BackendUnavailableError:
        return BackendUnavailableError(
            address=self._connection.settings.address,
            reason=f"another process has taken the place of its subscriber {place.subscriber!r} in "
            f"{place.topic!r}",
        )

    # A consumer that is not there any more: taken over, given up, or forgotten by the server

    def repair(self, reader: Reader) -> None:
        """Find out what became of a reader's consumer, and go on or end."""
        if reader.ended or reader in self._repairs or not self._connection.is_usable:
            return
        task = asyncio.create_task(self._repaired(reader))
        self._repairs[reader] = task
        task.add_done_callback(lambda _: self._repairs.pop(reader, None))

    async def _repaired(self, reader: Reader) -> None:
        try:
            await self._connection.retried(lambda: self.reattach(reader))
        except MessagingError as e:
            self._end(reader, e)
        except nats.js.errors.Error as e:
            topic = reader.place.topic
            self._end(reader, MessagingError(summary=f"{topic!r} cannot be read: {e}"))

    # Closing

    async def close(self, place: Place, *, forget: bool) -> None:
        """Read no more; a durable place stays where it is, or is given up."""
        reader = self._readers.pop(place, None)
        if reader is None:
            return
        reader.stop()
        if not place.durable:
            await self._stream.drop_consumer(reader.consumer)
        elif forget:
            await self._drop(key_of(place.topic, place.subscriber))
        else:
            await self._leave(reader)

    async def _leave(self, reader: Reader) -> None:
        place = reader.place
        key = key_of(place.topic, place.subscriber)
        entry = await self._entry(key)
        record = entry.record
        if record is None or record.owner != self._me:
            return
        progress = _progress(await self._stream.consumer(record.consumer))
        floor = progress.floor if progress is not None else 0
        record = register.went_on(record, max(floor, reader.settled))
        if await self._write(key, register.left(record), entry.revision):
            await self._stream.drop_consumer(reader.consumer)

    async def close_all(self) -> None:
        """Leave all places."""
        for repair in list(self._repairs.values()):
            repair.cancel()
        for reader in self._readers.values():
            reader.stop()
        work = [self.close(place, forget=False) for place in list(self._readers)]
        for result in await asyncio.gather(*work, return_exceptions=True):
            if isinstance(result, BaseException):
                logger.debug("a place was not left in order", exc_info=result)

    # Records

    async def declare(self, place: Place) -> None:
        """Make a durable place where there is none."""
        key = key_of(place.topic, place.subscriber)
        if (await self._entry(key)).record is None:
            await self._write(key, await self._new_record(place, fresh=False), 0)

    async def disown(self, namespace: str, subscriber: str) -> None:
        """Give up all durable places of a subscriber in a namespace."""
        first = token_of(namespace.partition(":")[0])
        for key in await self._stream.keys(f"{first}.*.{token_of(subscriber)}"):
            record = (await self._entry(key)).record
            if record is not None and record.topic.startswith(f"{namespace}:"):
                await self._drop(key)

    async def _drop(self, key: str) -> None:
        record = (await self._entry(key)).record
        await self._stream.drop_key(key)
        if record is not None and record.consumer:
            await self._stream.drop_consumer(record.consumer)

    async def _entry(self, key: str) -> Entry:
        try:
            found = await self._connection.attempt(self._stream.bucket.get(key))
        except nats.js.errors.KeyNotFoundError:
            return Entry(None, 0)
        return Entry(register.unpack(found.value or b"", key), found.revision or 0)

    async def _write(self, key: str, record: PlaceRecord, revision: int) -> int:
        """Write a record over the one of a revision; returns the new revision, 0: too late."""
        bucket, data = self._stream.bucket, register.pack(record)
        try:
            work = bucket.update(key, data, last=revision) if revision else bucket.create(key, data)
            return await self._connection.attempt(work)
        except nats.js.errors.KeyWrongLastSequenceError:
            return 0

    # Who listens

    async def listeners(self, namespace: str) -> dict[str, list[str]]:
        """Return topic -> names of the subscribers that read it now."""
        found: list[tuple[str, str, str]] = []
        for consumer in await self._stream.consumers():
            told = consumer.config.metadata or {}
            topic = name_of(told.get("topic", "="))
            if topic.startswith(f"{namespace}:"):
                found.append((topic, name_of(told["subscriber"]), told["owner"]))
        owners = {owner for _, _, owner in found}
        alive = dict(
            zip(owners, await asyncio.gather(*map(self._connection.is_there, owners)), strict=True)
        )
        listed: dict[str, set[str]] = {}
        for topic, subscriber, owner in found:
            if alive[owner]:
                listed.setdefault(topic, set()).add(subscriber)
        return {topic: sorted(names) for topic, names in sorted(listed.items())}


def _progress(info: ConsumerInfo | None) -> Progress | None:
    if info is None or info.ack_floor is None or info.delivered is None:
        return None
    in_hand = info.num_ack_pending or 0
    return Progress(info.ack_floor.stream_seq, in_hand, info.delivered.stream_seq)
