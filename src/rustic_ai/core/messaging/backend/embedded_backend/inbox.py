"""What a client has subscribed to and what has arrived for it, as plain data."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from rustic_ai.core.messaging.backend.embedded_backend.protocol import (
    ACK,
    DURABLE,
    FORGET,
    HANDLED,
    HEADER,
    HEADER_SIZE,
    Fields,
    Op,
    pack,
    pack_names,
)

WINDOW: Final = 4096
"""Messages that may be on their way to a subscriber without its acknowledgement."""

_pack: Final = HEADER.pack
MessageReceiver = Callable[[bytes | memoryview, int, int, int, int], None]
"""Takes a body, which is a view only where it is LARGE, flags of its frame and its delivery, the
message's id and time to live, and for the how-manieth time it comes."""


@dataclass(slots=True, eq=False)
class Subscription:
    """A subscription as its client sees it; positions are those of the topic."""

    topic: int
    subscriber: str
    receiver: MessageReceiver | None
    """None: it has ended, and waits for the server's word."""
    start: int
    durable: bool
    max_attempts: int
    rank: int = 0
    """Those of a lower one are served first."""
    number: int = 0
    """Given by `Inbox.add`."""
    forget: bool = False
    confirmed: bool = False
    received: int = 0
    """Position after the last message that has arrived."""
    handled: int = 0
    """Position after the last message whose receiver has returned."""
    acked: int = 0
    settled: int = 0
    """Position before which nothing that a receiver sent waits to leave with the word of it."""
    epoch: int = 0
    """Life of the server that the positions belong to."""

    def opening(self, position: int, flags: int = 0) -> bytes:
        """Return the frame that asks the server for it."""
        return pack(
            Op.SUBSCRIBE,
            pack_names(self.subscriber) + bytes([self.max_attempts]),
            flags=flags | (DURABLE if self.durable else 0),
            aux=self.number,
            topic=self.topic,
            n=WINDOW,
            id=position,
        )

    def ending(self) -> bytes:
        """Return the frame that ends it."""
        return pack(Op.UNSUBSCRIBE, flags=FORGET if self.forget else 0, aux=self.number)


class Parcel:
    """A run of messages for one subscription; `base` is the position of the first."""

    def __init__(
        self,
        subscription: Subscription,
        base: int,
        attempt: int,
        epoch: int,
        run: bytes,
        first: int,
        handled: int = 0,
    ) -> None:
        self.subscription = subscription
        self.base = base
        self.attempt = attempt
        self.epoch = epoch
        self.run = run
        self.first = first
        """Where the body begins."""
        self.handled = handled
        """HANDLED, where that was so of some."""

    def rest(self, base: int, first: int) -> Parcel:
        """Return what of it is left from a message on."""
        about = self.attempt, self.epoch, self.run, first, self.handled
        return Parcel(self.subscription, base, *about)


class Inbox:
    """Subscriptions, and the parcels that wait for them. Its owner locks."""

    def __init__(self) -> None:
        self._subscriptions: dict[int, Subscription] = {}
        self.waiting: dict[int, deque[Parcel]] = {}
        """Parcels by rank; none is empty."""
        self.due: dict[Subscription, None] = {}
        """Those of which more may have been handled than was acknowledged."""
        self._numbers = 0

    def add(self, subscription: Subscription) -> None:
        """Begin a subscription, under a number that is free."""
        while not subscription.number or subscription.number in self._subscriptions:
            self._numbers = subscription.number = self._numbers % 65_535 + 1
        self._subscriptions[subscription.number] = subscription

    def get(self, number: int) -> Subscription | None:
        """Return a subscription."""
        return self._subscriptions.get(number)

    def all(self) -> list[Subscription]:
        """Return all subscriptions."""
        return list(self._subscriptions.values())

    def confirm(self, number: int, position: int, epoch: int) -> None:
        """Note that the server knows a subscription, and where it starts."""
        subscription = self._subscriptions.get(number)
        if subscription is None:
            return
        if subscription.confirmed and subscription.epoch == epoch:
            subscription.acked = 0  # what was acknowledged on the old connection may be lost
        else:
            subscription.handled = subscription.acked = position
        subscription.received = position
        subscription.epoch = epoch
        subscription.confirmed = True
        self.due[subscription] = None

    def remove(self, number: int) -> None:
        """Forget a subscription."""
        subscription = self._subscriptions.pop(number, None)
        if subscription is not None:
            self.due.pop(subscription, None)

    def put(self, fields: Fields) -> None:
        """Take a DELIVER frame."""
        _, flags, number, _, count, position, raw = fields
        subscription = self._subscriptions.get(number)
        if subscription is None or subscription.receiver is None:
            return
        subscription.received = position + count
        if count:
            attempt, epoch = (flags & ~HANDLED) or 1, subscription.epoch
            parcel = Parcel(
                subscription, position, attempt, epoch, raw, HEADER_SIZE, flags & HANDLED
            )
            parcels = self.waiting.get(subscription.rank)
            if parcels is None:
                parcels = self.waiting[subscription.rank] = deque()
            parcels.append(parcel)
        elif not self.waiting:  # a gap: what stood there was dropped
            subscription.handled = max(subscription.handled, position)
            self.due[subscription] = None

    def clear(self) -> None:
        """Forget all subscriptions, and what has arrived: nothing of it is handled any more."""
        self._subscriptions.clear()
        self.waiting.clear()
        self.due.clear()

    def take(self) -> Parcel | None:
        """Return the parcel of the lowest rank that waits longest."""
        waiting = self.waiting
        if not waiting:
            return None
        rank = min(waiting)
        parcels = waiting[rank]
        parcel = parcels.popleft()
        if not parcels:
            del waiting[rank]
        self.due[parcel.subscription] = None
        return parcel

    def put_back_if_overtaken(self, parcel: Parcel) -> bool:
        """Put the rest of a parcel back, to be the next of its rank, if a lower one waits."""
        rank = parcel.subscription.rank
        if not self.waiting or min(self.waiting) >= rank:
            return False
        self.waiting.setdefault(rank, deque()).appendleft(parcel)
        return True

    def acknowledgements(self, *, at_rest: bool) -> bytes:
        """Return the frames that acknowledge what was handled, which counts as done then.

        Args:
            at_rest: whether no parcel is in hand.
        """
        acks = b""
        for subscription in self.due:
            handled = subscription.handled
            if handled > subscription.acked:
                subscription.acked = handled
                acks += _pack(HEADER_SIZE, ACK, 0, subscription.number, 0, 0, handled)
        if at_rest:
            self.due.clear()
        return acks

    def unacknowledged_count(self) -> int:
        """Return how many handled messages the server does not know of."""
        return sum(s.handled - s.acked for s in list(self.due))  # others may add to it
