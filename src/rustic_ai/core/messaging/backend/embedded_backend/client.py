"""What a client does with its connection: publish, subscribe, ask, and serve its handlers."""

from __future__ import annotations

import contextlib
import logging
import secrets
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from threading import get_ident
from typing import TYPE_CHECKING, Final

from rustic_ai.core.errors import (
    BackendClosedError,
    BackendUnavailableError,
    MessageTooLargeError,
)
from rustic_ai.core.messaging.backend.embedded_backend.dial import Link
from rustic_ai.core.messaging.backend.embedded_backend.inbox import (
    WINDOW,
    Inbox,
    Parcel,
    Subscription,
)
from rustic_ai.core.messaging.backend.embedded_backend.outgoing import Outgoing
from rustic_ai.core.messaging.backend.embedded_backend.protocol import (
    DELIVER,
    FLAGS_AT,
    HEADER_SIZE,
    LARGE,
    MAX_STEP,
    SHARED,
    Fields,
    Frame,
    Op,
    Query,
    pack_ack,
    pack_names,
    pack_step,
)
from rustic_ai.core.messaging.backend.embedded_backend.questions import Question, Questions
from rustic_ai.core.messaging.backend.embedded_backend.revival import restore
from rustic_ai.core.messaging.backend.embedded_backend.shortcut import LOOK_AFTER, Shortcut
from rustic_ai.core.messaging.backend.embedded_backend.step import Step
from rustic_ai.core.messaging.backend.embedded_backend.window import SendWindow
from rustic_ai.core.messaging.backend.embedded_backend.wire import Wire
from rustic_ai.core.messaging.core.attachment import Place
from rustic_ai.core.messaging.core.stop_signal import StopSignal

if TYPE_CHECKING:
    from rustic_ai.core.messaging.backend.embedded_backend.shared.exchange import Exchange

logger: Final = logging.getLogger(__name__)

_ACK_DELAY: Final = 5
"""Milliseconds that the word of handled messages may wait for more: it only gives credit."""
_LOAN_LOOK: Final = 1000
"""Milliseconds after which an idle client looks whether parts that it held are out of use."""


class ServerClient:
    """Publishes, subscribes and asks. Safe from any thread, and from inside handlers.

    Args:
        dial: makes connections in the name of a client, by its number.
        address: names the server, for errors.
        patience: seconds for which a lost server is looked for.
        renumbered: is told old number -> new of the topics, when another server took over.
        open_channel: connects to the server once more, for descriptors; errors as `dial_channel`.
        shared_memory: bytes of shared memory that it may have for what it sends.

    Raises:
        BackendUnavailableError: there is no server.
        PortTakenError: whoever listens is not our server.
        AccessError: it does not let us in.
    """

    def __init__(
        self,
        dial: Callable[[int], Link],
        address: Callable[[], str],
        patience: float,
        renumbered: Callable[[dict[int, int]], None],
        open_channel: Callable[[], socket.socket],
        shared_memory: int,
    ) -> None:
        self.number = secrets.randbits(63) | 1
        self.window = SendWindow()
        self.inbox = Inbox()
        self.questions = Questions(lambda: self.wire)
        self.topics: dict[int, tuple[str, str]] = {}
        """Number of a topic -> namespace and name, as the server was told."""
        self.renumbered = renumbered
        self._open_channel = open_channel
        self._shared_memory = shared_memory
        self.exchange: Exchange | None = None
        """Made when it is needed first."""
        self._step = Step(self._send_step)
        self.wire = Wire(
            lambda: dial(self.number), address, patience, self._take_in, lambda k: restore(self, k)
        )
        self.outgoing = Outgoing(self.wire, self.window)
        self._shortcut = Shortcut(self.wire, self.number, open_channel)

    # What callers want

    def publish(self, frame: bytes, now: bool = False) -> int:  # noqa: FBT001, FBT002
        """Send a message; in a handler it leaves with the others when the handler returns.

        Args:
            frame: the PUBLISH frame.
            now: in a handler: send it at once.

        Returns:
            The unit to wait for; 0 for a message that leaves later.

        Raises:
            MessageTooLargeError: the server would not take it; nothing was sent.
            BackPressureError: subscribers do not keep up, for too long.
            BackendUnavailableError: the server is gone.
        """
        wire, step = self.wire, self._step
        try:
            if len(frame) > wire.link.max_frame:
                self._check_size(frame)
            if step.running and not now and step.thread == get_ident():
                step.frames.append(frame)
                step.size += len(frame)
                return 0
            unit = self.outgoing.send(frame)
        except BaseException:
            self._take_back([frame])
            raise
        if not unit % LOOK_AFTER:
            self._shortcut.look()
        return unit

    def _check_size(self, frame: bytes) -> None:
        link = self.wire.link
        limit = link.max_payload if frame[FLAGS_AT] & LARGE else link.max_frame
        if len(frame) > limit:
            raise MessageTooLargeError(size=len(frame) - HEADER_SIZE, limit=limit - HEADER_SIZE)

    def open_topics(self, names: Sequence[tuple[str, str]]) -> list[int]:
        """Return the numbers of topics, made on first use, by namespace and name."""
        questions = [Question(Op.TOPIC, pack_names(*both)) for both in names]
        numbers = [answer.topic for answer in self.questions.ask_all(questions)]
        for number, (namespace, name) in zip(numbers, names, strict=True):
            self.topics[number] = namespace or self.topics.get(number, ("", ""))[0], name
        return numbers

    def declare(self, places: Iterable[tuple[int, str, int]]) -> None:
        """Give subscribers lasting places, where they have none: topic, name and position."""
        questions = [Question(Op.DECLARE, pack_names(s), topic, at) for topic, s, at in places]
        self.questions.ask_all(questions)

    def disown(self, namespace: str, subscriber: str) -> None:
        """Take all lasting places of a subscriber away."""
        self.questions.ask(Op.DISOWN, pack_names(namespace, subscriber))

    def query(
        self, kind: Query, *, topic: int = 0, start: int = 0, body: bytes = b""
    ) -> Iterator[Frame]:
        """Ask; yields the ROWS frames of the answer, the last with ``aux == 0``."""
        return self.questions.query(kind, topic=topic, start=start, body=body)

    def subscribe(self, subscriptions: Sequence[Subscription]) -> None:
        """Have receivers called with each message from now on, or from where they left off."""
        with self.wire.sending:  # else a connection made meanwhile would ask for them, too
            with self.wire.state:
                for subscription in subscriptions:
                    self.inbox.add(subscription)
            self.wire.transmit(b"".join(s.opening(s.start) for s in subscriptions))
        self.wire.wait(lambda: all(s.confirmed for s in subscriptions))

    def unsubscribe(self, subscription: Subscription, *, forget: bool) -> None:
        """End a subscription; its receiver is not called again.

        Args:
            subscription: which.
            forget: whether its place in the topic goes, too.
        """
        if self.exchange is not None:  # a handler may end its own subscription, and read on
            self.run_errands()
        with self.wire.state:
            subscription.receiver, subscription.forget = None, forget
        number = subscription.number
        with self.wire.sending:
            self.check()
            if subscription.settled > subscription.acked:
                self.wire.transmit(pack_ack(number, subscription.settled))
            self.wire.transmit(subscription.ending())
        self.wire.wait(lambda: self.inbox.get(number) is None)

    def serve(self, stop: StopSignal) -> None:
        """Run receivers on this thread until `stop` is set, or the client is closed.

        Raises:
            BackendUnavailableError: the server is gone, and did not come back.
            BackPressureError: what a handler sent could not be stored.
        """
        wire, inbox, step = self.wire, self.inbox, self._step
        waiting, run = inbox.waiting, step.run
        step.claim()
        try:
            while not (stop.stopped or wire.closed):
                if not waiting:
                    self._rest(stop)
                elif step.is_due():
                    step.flush(self._acknowledgements())
                with wire.state:
                    parcel = inbox.take()
                if parcel is not None:
                    run(parcel, stop, self._acknowledgements, self._overtaken)
        except BackendClosedError:
            return
        finally:
            with contextlib.suppress(BackendClosedError, BackendUnavailableError):
                self._step.flush(self._acknowledgements())
            self._step.release()

    def _rest(self, stop: StopSignal) -> None:
        """Wait for messages. The word that some were handled waits for company, for a moment."""
        step, waiting = self._step, self.inbox.waiting
        waits = not step.frames and 0 < self.inbox.unacknowledged_count() < WINDOW // 4
        patience: float | None = _ACK_DELAY
        if not waits:
            step.flush(self._acknowledgements(at_rest=True))
            patience = None
            if self.exchange is not None and self.exchange.loans.any_held:
                patience = _LOAN_LOOK
        self.wire.read_next(stop, waiting, patience)
        if waits and not waiting:
            step.flush(self._acknowledgements())

    def _overtaken(self, parcel: Parcel) -> bool:
        """Look for something more urgent than the rest of a parcel, which then waits."""
        self.wire.peek()
        with self.wire.state:
            return self.inbox.put_back_if_overtaken(parcel)

    def check(self) -> None:
        """Raise if the client was closed, or the server lost for good; as `Wire.check`."""
        self.wire.check()

    def close(self) -> None:
        """Say goodbye, once what was sent is stored; every call from now on is refused."""
        if not self.wire.closed:
            self.outgoing.drain()
            if self.exchange is not None:
                self.run_errands()
            self.wire.close()
            with self.wire.state:
                self.inbox.clear()
            if self.exchange is not None:
                self.exchange.close()

    # Sending

    def _send_step(self, acks: bytes, frames: list[bytes], size: int) -> None:
        """Send acknowledgements, and with them what handlers sent, `size` bytes, as one unit."""
        wire = self.wire
        if not frames:
            with wire.sending:
                wire.transmit(acks)
        elif self.exchange is None and len(acks) + size < wire.link.max_frame:  # nearly always
            self.outgoing.send(pack_step(acks, frames))
        else:
            self._send_large_step(acks, frames, size)

    def _send_large_step(self, acks: bytes, frames: list[bytes], size: int) -> None:
        """Send a step that may have parts, or not fit into one unit."""
        room, flags = self.wire.link.max_frame * MAX_STEP - HEADER_SIZE - len(acks), 0
        if size > room or self.exchange is not None:
            for frame in frames:
                flags |= frame[FLAGS_AT] & (LARGE | SHARED)
        if flags & LARGE:
            room += self.wire.link.max_payload
        unsent = frames
        try:
            if size > room:  # too large for one unit: the word goes with the last
                for frame in frames[:-1]:
                    self.outgoing.send(frame)
                frames = frames[-1:]
            self.outgoing.send(pack_step(acks, frames, flags))
        except BaseException:
            self._take_back(unsent)
            raise

    def _take_back(self, frames: list[bytes]) -> None:
        """Let go of what frames need in shared memory that will not be sent."""
        if self.exchange is not None:
            for frame in frames:
                if frame[FLAGS_AT] & SHARED:
                    self.exchange.stays(frame)

    def _acknowledgements(self, *, at_rest: bool = False) -> bytes:
        if self.exchange is not None:
            self.run_errands(at_rest=at_rest)
        with self.wire.state:
            return self.inbox.acknowledgements(at_rest=at_rest)

    # Shared memory

    def share(self) -> Exchange | None:
        """Return this client's part in shared memory; None where there can be none."""
        if self.exchange is None and self._shared_memory and self.wire.link.path == "unix":
            from rustic_ai.core.messaging.backend.embedded_backend.shared import exchange, seals

            if seals.SUPPORTED:
                with self.wire.sending:  # else the server could be another one meanwhile
                    self.exchange = self.exchange or exchange.Exchange(
                        self.number,
                        self._open_channel,
                        self._hold,
                        self.wire.wait,
                        self._shared_memory,
                        self.wire.link.life,
                    )
                    self.window.leaves = self.exchange.leaves
        return self.exchange

    def _hold(self, place: Place) -> bool:
        use = place.use.to_bytes(4, "little")
        return bool(self.questions.ask(Op.HOLD, use, id_=place.slot).aux)

    def run_errands(self, *, at_rest: bool = False) -> None:
        """Tell the server what it must hear of shared memory before anything is acknowledged.

        Args:
            at_rest: whether no message is in hand or waits to be.
        """
        exchange = self.exchange
        assert exchange is not None
        if exchange.has_errands:
            with self.wire.sending:  # before the lock: an acknowledgement could overtake the word
                self.wire.transmit(exchange.errands(at_rest=at_rest or not self.inbox.all()))

    def _take_in(self, frames: Sequence[Fields]) -> None:
        """Take frames, under `state`."""
        for fields in frames:
            if fields[0] == DELIVER:
                self.inbox.put(fields)
            else:
                self._hear(Frame(*fields))

    def _hear(self, frame: Frame) -> None:
        """Take a frame that is no message."""
        match frame.op:
            case Op.PUBLISHED:
                self.window.accept(frame.id)
            case Op.TOPIC | Op.ROWS | Op.DECLARE | Op.DISOWN | Op.HOLD:
                self.questions.answer(frame)
            case Op.SUBSCRIBE:
                self.inbox.confirm(frame.aux, frame.id, self.wire.link.epoch)
            case Op.UNSUBSCRIBE:
                self.inbox.remove(frame.aux)
            case Op.REFUSED:
                self.window.refuse(frame.id, frame.body.decode(errors="replace"))
            case Op.RELEASED | Op.FORGET | Op.RETIRE:
                if self.exchange is not None:
                    self.exchange.hear(frame)
            case Op.ERROR:
                self.wire.give_up(f"it refused: {frame.body.decode(errors='replace')}")
            case _:
                self.wire.break_off(f"it sent a frame of kind {frame.op}")
