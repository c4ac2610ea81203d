"""Who reads where: the record of each durable place, and what a crash means. Without any I/O."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from rustic_ai.core.errors import MessagingError


class PlaceRecord(msgspec.Struct, frozen=True, kw_only=True):
    """How far a subscriber is in a topic, as the bucket keeps it.

    While somebody reads, the position is his consumer's; `next` is where that one began.
    """

    topic: str
    subscriber: str
    born: str
    """When the stream was made that the numbers are of."""
    next: int
    """Number of the stream from which on messages are for it."""
    consumer: str = ""
    """Who reads; '': nobody."""
    owner: str = ""
    """Inbox of the client that reads."""
    suspect: int = 0
    """Number of the message that was in hand when its process was lost; 0: none."""
    crashes: int = 0
    """How often it was, with that one in hand."""
    seen: int = 0
    """Number up to which messages were given to a process that was lost."""


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(PlaceRecord).decode


def pack(record: PlaceRecord) -> bytes:
    """Return a record as JSON."""
    return _encode(record)


def unpack(data: bytes, key: str) -> PlaceRecord:
    """Read a record.

    Raises:
        MessagingError: it is none.
    """
    try:
        return _decode(data)
    except msgspec.DecodeError as e:
        raise MessagingError(summary=f"the place {key!r} in NATS cannot be read: {e}") from e


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a consumer is."""

    floor: int
    """Number up to which everything is acknowledged."""
    in_hand: int
    """Messages that were delivered and are not."""
    delivered: int
    """Number of the last one that was delivered."""


def went_on(record: PlaceRecord, floor: int) -> PlaceRecord:
    """Return a record with the position behind what is acknowledged."""
    return msgspec.structs.replace(record, next=max(record.next, floor + 1))


def is_crash(record: PlaceRecord, progress: Progress, me: str) -> bool:
    """Say whether whoever read there before was lost with a message in hand."""
    return record.owner != me and progress.in_hand > 0


def crashed(record: PlaceRecord, suspect: int, delivered: int) -> PlaceRecord:
    """Return a record with one more crash.

    Args:
        record: of the place.
        suspect: number of the first message that was not handled.
        delivered: number of the last one that the lost process was given.
    """
    crashes = record.crashes + 1 if record.suspect == suspect else 1
    seen = max(record.seen, delivered)
    return msgspec.structs.replace(record, suspect=suspect, crashes=crashes, seen=seen)


def attempt_of(record: PlaceRecord, seq: int) -> int:
    """Return how often a message is delivered when it is now, as far as anybody counts."""
    if seq == record.suspect:
        return record.crashes + 1
    return 2 if seq <= record.seen else 1


def buried(record: PlaceRecord) -> PlaceRecord:
    """Return a record that goes on behind its suspect."""
    return msgspec.structs.replace(record, next=record.suspect + 1, suspect=0, crashes=0)


def taken(record: PlaceRecord, consumer: str, me: str) -> PlaceRecord:
    """Return a record of a place that is ours, and read by a consumer."""
    return msgspec.structs.replace(record, consumer=consumer, owner=me)


def left(record: PlaceRecord) -> PlaceRecord:
    """Return a record of a place where nobody reads."""
    return msgspec.structs.replace(record, consumer="", owner="")


def of_stream(record: PlaceRecord, born: str) -> PlaceRecord:
    """Return a record whose numbers are of the stream that is there now."""
    if record.born == born:
        return record
    return PlaceRecord(topic=record.topic, subscriber=record.subscriber, born=born, next=1)
