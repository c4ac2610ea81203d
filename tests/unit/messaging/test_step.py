"""The steps of a client: what counts as handled."""

from __future__ import annotations

from rustic_ai.core.messaging.backend.embedded_backend.inbox import Inbox, Parcel, Subscription
from rustic_ai.core.messaging.backend.embedded_backend.protocol import (
    DELIVER,
    Op,
    pack,
    pack_ack,
)
from rustic_ai.core.messaging.backend.embedded_backend.step import Step
from rustic_ai.core.messaging.core.stop_signal import StopSignal
from tests.unit.messaging.wire import message


def test_a_handler_that_outlives_its_server_acknowledges_nothing_at_the_next() -> None:
    """Positions of the old one mean nothing there; those of both count on their own."""
    inbox, got = Inbox(), []

    def receive(body: memoryview, *_: int) -> None:
        got.append(bytes(body))
        if len(got) == 2:  # it has asked something, and the server was started again meanwhile
            inbox.confirm(subscription.number, 0, epoch=2)

    subscription = Subscription(1, "s", receive, start=0, durable=True, max_attempts=0)
    inbox.add(subscription)
    inbox.confirm(subscription.number, 20, epoch=1)
    run = b"".join(message(1, number, body=b"%d" % number) for number in range(3))
    step, stop = Step(lambda *_: None), StopSignal()
    try:
        step.run(Parcel(subscription, 20, 1, 1, run, 0), stop, lambda: b"", lambda _: False)
        assert got == [b"0", b"1", b"2"]
        assert inbox.acknowledgements(at_rest=True) == b""
        step.run(Parcel(subscription, 0, 1, 2, run, 0), stop, lambda: b"", lambda _: False)
        assert subscription.handled == 3
    finally:
        stop.close()


def test_a_word_given_in_the_middle_of_a_parcel_is_not_the_last() -> None:
    """What is handled after it is told with the next one; what was told is not told again."""
    inbox, words = Inbox(), []
    subscription = Subscription(
        1, "s", lambda *_: None, start=0, durable=True, max_attempts=0, number=5
    )
    inbox.add(subscription)
    inbox.confirm(5, 0, epoch=1)
    run = b"".join(message(1, number) for number in range(1_500))
    inbox.put((DELIVER, 1, 5, 1, 1_500, 0, pack(Op.DELIVER, run)))
    step, stop = Step(lambda acks, *_: words.append(acks)), StopSignal()
    try:
        parcel = inbox.take()
        assert parcel is not None
        step.run(parcel, stop, lambda: inbox.acknowledgements(at_rest=False), lambda _: False)
    finally:
        stop.close()
    step.flush(inbox.acknowledgements(at_rest=True))
    assert words == [pack_ack(5, 1_024), pack_ack(5, 1_500)]
    assert inbox.acknowledgements(at_rest=True) == b""
    inbox.confirm(5, 1_500, epoch=1)  # on a new connection, which may not have got the word
    assert inbox.acknowledgements(at_rest=True) == pack_ack(5, 1_500)
