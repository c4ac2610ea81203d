"""What a client has subscribed to and what has arrived for it, as plain data."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from rustic_ai.core.messaging.backend.embedded_backend.protocol import Frame

FrameHandler = Callable[[Frame], None]


@dataclass(slots=True, eq=False)
class Subscription:
    """A subscription as its client sees it; positions are those of the topic."""

    number: int
    handler: FrameHandler
    confirmed: bool = False
    handled: int = 0
    """Position after the last message whose handler has returned."""
    acked: int = 0


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message for one subscription; `position` is the one after it."""

    subscription: Subscription
    position: int
    frame: Frame


class Inbox:
    """Subscriptions, and the deliveries that wait for their handlers. Its owner locks."""

    def __init__(self) -> None:
        self._subscriptions: dict[int, Subscription] = {}
        self._waiting: deque[Delivery] = deque()
        self._receiver: Subscription | None = None
        self._position = 0
        self._expected = 0

    def add(self, handler: FrameHandler) -> Subscription:
        """Begin a subscription, under a number that is free."""
        number = next(i for i in range(1, 1 << 16) if i not in self._subscriptions)
        subscription = self._subscriptions[number] = Subscription(number, handler)
        return subscription

    def get(self, number: int) -> Subscription | None:
        """Return a subscription."""
        return self._subscriptions.get(number)

    def confirm(self, number: int, position: int) -> None:
        """Note that the server knows a subscription, and where it starts."""
        subscription = self._subscriptions[number]
        subscription.handled = subscription.acked = position
        subscription.confirmed = True

    def remove(self, number: int) -> None:
        """Forget a subscription."""
        self._subscriptions.pop(number, None)

    def expect(self, announcement: Frame) -> None:
        """Note what the messages are that follow a DELIVER frame."""
        self._receiver = self._subscriptions.get(announcement.aux)
        self._position = announcement.id
        self._expected = announcement.n

    def put(self, frame: Frame) -> bool:
        """Take a message that was announced; False where none was."""
        if not self._expected:
            return False
        self._expected -= 1
        self._position += 1
        if self._receiver is not None:  # else its subscription has ended meanwhile
            self._waiting.append(Delivery(self._receiver, self._position, frame))
        return True

    @property
    def has_deliveries(self) -> bool:
        """Whether a delivery waits."""
        return bool(self._waiting)

    def take(self) -> Delivery | None:
        """Return the delivery that waits longest."""
        return self._waiting.popleft() if self._waiting else None

    def unacknowledged(self) -> list[Subscription]:
        """Return the subscriptions that handled more than they have acknowledged."""
        return [s for s in self._subscriptions.values() if s.handled > s.acked]
