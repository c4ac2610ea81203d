"""The messaging contract over a store of somebody else's: places, steps, serving, history."""

from __future__ import annotations

import logging
import threading
import time
from abc import abstractmethod
from collections.abc import Iterator, Sequence

from rustic_ai.core.errors import BackendClosedError, BackendUnavailableError
from rustic_ai.core.messaging.backend.remote.arrivals import Arrivals, Delivery, Place
from rustic_ai.core.messaging.backend.remote.record import (
    Output,
    dead_output_of,
    message_of,
    output_of,
)
from rustic_ai.core.messaging.backend.remote.sender import Sender
from rustic_ai.core.messaging.backend.serving_thread import ServingThread
from rustic_ai.core.messaging.core.message import Message
from rustic_ai.core.messaging.core.message_id import id_time_ms
from rustic_ai.core.messaging.core.messaging_backend import MessageHandler, MessagingBackend
from rustic_ai.core.messaging.core.stop_signal import StopSignal

logger = logging.getLogger(__name__)

CLOSE_DEADLINE = 5.0
"""Seconds that `cleanup` waits for what was sent to be stored."""
_CLOCK_SKEW_MS = 60_000
"""By how much the clocks of publishers and store may differ before finding an id takes longer."""
_STEP_BYTES = 32 << 10
_STEP_MESSAGES = 256
_STEP_SECONDS = 0.001
_COMMIT_WITHIN = 1.0
"""Seconds that who ends a subscription waits for the handler that runs."""


class RemoteMessagingBackend(MessagingBackend):
    """What backends over a foreign store have in common; a subclass talks to the store.

    Messages are fetched by threads of the subclass and handled by the one that serves. What a
    handler sends is kept until it has returned; handlers that finish within a millisecond share a
    step, which is committed as a whole where the store can. What is sent elsewhere goes through one
    thread, in order.

    Args:
        name: of the store, for the names of threads.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._places: dict[tuple[str, str], Place] = {}
        self._arrivals = Arrivals()
        self._sender = Sender(f"rustic-{name}-sender", self._append, self._lost)
        self._serving = ServingThread()
        self._failure: Exception | None = None
        self._closed = False
        self._server: int | None = None
        """Thread that serves."""
        self._handling = False
        self._outputs: list[Output] = []
        self._settled: list[Delivery] = []
        self._step_size = 0
        self._step_since = 0.0
        self._commit_asked: list[threading.Event] = []
        """Set once what was handled until then is committed."""

    # What a subclass talks to its store about

    @abstractmethod
    def _append(self, outputs: Sequence[Output]) -> None:
        """Store messages in their order, and return when they are; called by one thread.

        Raises:
            BackPressureError: there is no room for them, since subscribers do not keep up.
            BackendUnavailableError: the store is gone.
        """

    @abstractmethod
    def _commit(self, settled: Sequence[Delivery], outputs: Sequence[Output]) -> None:
        """Store outputs and acknowledge deliveries, as one where the store can.

        Called by the thread that serves; errors as of `_append`.
        """

    @abstractmethod
    def _open_place(self, place: Place) -> None:
        """Take a subscription to the store; what it gives from then on goes to `_deliver`."""

    @abstractmethod
    def _close_place(self, place: Place, *, forget: bool) -> None:
        """End it; `forget`: its place in the topic is not needed any more."""

    @abstractmethod
    def _scan(self, topic: str, since_ms: int) -> Iterator[bytes]:
        """Yield records in chunks, oldest first, that were stored at or after a time; 0: all."""

    @abstractmethod
    def _topics_of(self, namespace: str) -> list[str]:
        """Return the topics of a namespace."""

    @abstractmethod
    def _disconnect(self) -> None:
        """End threads and connections; called once."""

    # What a subclass is given

    def _deliver(self, deliveries: Sequence[Delivery]) -> None:
        """Take what the store gives, in its order."""
        self._arrivals.put(deliveries)

    def _await_room(self, place: Place) -> bool:
        """Wait until not too much waits for a place; False: it has ended."""
        return self._arrivals.await_room(place)

    def _lost(self, error: Exception) -> None:
        """Note an error that nobody waited for; the next call, and whoever serves, raises it."""
        if self._failure is None:
            self._failure = error
        self._arrivals.wake()

    def _check(self) -> None:
        """Raise what went wrong where nobody waited, or that this object was cleaned up."""
        if self._closed:
            raise BackendClosedError
        failure = self._failure
        if failure is not None:
            if not isinstance(failure, BackendUnavailableError):
                self._failure = None  # once is enough: it was about what is past
            raise failure

    @staticmethod
    def _bury(place: Place, record: bytes, attempts: int, reason: str) -> Output | None:
        """Return what goes to the dead letters; None: the record is one already."""
        return dead_output_of(place.topic, record, place.subscriber, attempts, reason)

    # Messages

    def store_message(self, namespace: str, topic: str, message: Message) -> None:
        """Send the message, and wait until the store has it; in a step, with the step."""
        output = self._checked_output(namespace, topic, message)
        if self._in_step():
            self._keep(output)
        else:
            self._sender.wait(self._sender.put(output, awaited=True))

    def send_message(
        self, namespace: str, topic: str, message: Message, *, now: bool = False
    ) -> None:
        """Send the message in the background; in a step, with the step."""
        output = self._checked_output(namespace, topic, message)
        if now or not self._in_step():
            self._sender.put(output)
        else:
            self._keep(output)

    def _checked_output(self, namespace: str, topic: str, message: Message) -> Output:
        self._check()
        return output_of(namespace, topic, message)

    def _in_step(self) -> bool:
        return self._handling and self._server == threading.get_ident()

    def _keep(self, output: Output) -> None:
        self._outputs.append(output)
        self._step_size += len(output.record)

    # History

    def get_messages_for_topic(self, topic: str) -> list[Message]:
        """Return the whole history."""
        self._check()
        return list(self._history(topic, 0))

    def get_messages_for_topic_since(self, topic: str, msg_id: int) -> list[Message]:
        """Return what came after `msg_id`."""
        self._check()
        return list(self._since(topic, msg_id))

    def get_next_message_for_topic_since(self, topic: str, msg_id: int) -> Message | None:
        """Return the first that came after `msg_id`."""
        self._check()
        return next(self._since(topic, msg_id), None)

    def get_messages_by_id(self, namespace: str, msg_ids: Sequence[int]) -> list[Message]:
        """Look the ids up in all topics of the namespace."""
        self._check()
        wanted, found = set(msg_ids), dict[int, Message]()
        first = min(map(id_time_ms, wanted), default=0) - _CLOCK_SKEW_MS
        for topic in self._topics_of(namespace) if wanted else ():
            for message in self._history(topic, max(0, first)):
                if message.id in wanted:
                    found.setdefault(message.id, message)
                    if len(found) == len(wanted):
                        break
        return [found[i] for i in msg_ids if i in found]

    def _history(self, topic: str, since_ms: int) -> Iterator[Message]:
        now = time.time() * 1000
        for record in self._scan(topic, since_ms):
            message = message_of(record, topic)
            if message is not None and not message.is_expired(now):
                yield message

    def _since(self, topic: str, msg_id: int) -> Iterator[Message]:
        if not msg_id:
            yield from self._history(topic, 0)
            return
        made = id_time_ms(msg_id)
        from_ms = max(0, made - _CLOCK_SKEW_MS)
        for begin in {from_ms: None, 0: None}:
            messages = self._history(topic, begin)
            if any(message.id == msg_id for message in messages):  # takes up to it off
                yield from messages
                return
        yield from _from_later(self._history(topic, from_ms), made)

    # Subscriptions

    def subscribe(
        self,
        topic: str,
        handler: MessageHandler,
        *,
        subscriber: str = "",
        durable: bool = False,
        from_start: bool = False,
        max_attempts: int = 0,
    ) -> None:
        """Subscribe, or replace the handler of a subscription."""
        self._check()
        key = topic, subscriber
        known = self._places.get(key)
        if known is not None:
            known.handler = handler
            return
        place = Place(topic, subscriber, durable, from_start, max_attempts, handler)
        self._places[key] = place
        try:
            self._open_place(place)
        except BaseException:
            del self._places[key]
            place.handler = None
            raise

    def unsubscribe(self, topic: str, *, subscriber: str = "") -> None:
        """End a subscription and its place."""
        self._end(topic, subscriber, forget=True)

    def detach(self, topic: str, *, subscriber: str = "") -> None:
        """End a subscription; a durable place stays."""
        self._end(topic, subscriber, forget=False)

    def _end(self, topic: str, subscriber: str, *, forget: bool) -> None:
        self._check()
        place = self._places.pop((topic, subscriber), None)
        if place is None:
            return
        place.handler = None
        self._arrivals.forget(place)
        self._have_step_committed()  # what was handled until now is not to come again
        self._close_place(place, forget=forget or not place.durable)

    def _have_step_committed(self) -> None:
        """Commit, or have the thread that serves do so, unless a handler keeps it for too long."""
        if self._server in {None, threading.get_ident()}:
            self._commit_step()
            return
        done = threading.Event()
        self._commit_asked.append(done)
        self._arrivals.wake()
        done.wait(_COMMIT_WITHIN)

    def supports_subscription(self) -> bool:
        """Messages are pushed."""
        return True

    # Serving

    def start(self) -> None:
        """Deliver on a thread of this object's."""
        self._check()
        self._serving.start(f"rustic-{self._name}", self.serve)

    def serve(self, stop: StopSignal) -> None:
        """Deliver on the calling thread until `stop` is set."""
        self._check()
        self._server = threading.get_ident()
        try:
            while not (stop.is_set() or self._closed):
                self._check()
                if self._commit_asked:
                    self._commit_step()
                    self._let_askers_go()
                delivery = self._arrivals.take()
                if delivery is not None:
                    self._handle(delivery)
                elif self._settled:
                    self._commit_step()
                else:
                    self._arrivals.wait(stop)
        finally:
            try:
                if not self._closed:
                    self._commit_step()
            finally:
                self._server = None
                self._let_askers_go()

    def _let_askers_go(self) -> None:
        while self._commit_asked:
            self._commit_asked.pop().set()

    def _handle(self, delivery: Delivery) -> None:
        handler = delivery.place.handler
        if handler is None:
            return
        mark = len(self._outputs)
        message = message_of(delivery.record, delivery.place.topic, delivery.attempt)
        if message is not None and not message.is_expired(time.time() * 1000):
            self._handling = True
            try:
                handler(message)
            except Exception:
                logger.exception("a message handler failed")
            except BaseException:
                del self._outputs[mark:]  # it did not finish: the message comes again
                raise
            finally:
                self._handling = False
        self._settled.append(delivery)
        # After a crash each message is settled alone: so the culprit is told from its neighbours.
        if delivery.attempt > 1 or self._step_is_due():
            self._commit_step()

    def _step_is_due(self) -> bool:
        if not self._outputs:
            return len(self._settled) >= _STEP_MESSAGES
        now = time.monotonic()
        if not self._step_since:
            self._step_since = now
        return self._step_size >= _STEP_BYTES or now - self._step_since >= _STEP_SECONDS

    def _commit_step(self) -> None:
        if self._settled or self._outputs:
            settled, outputs = self._settled, self._outputs
            self._settled, self._outputs = [], []
            self._step_size, self._step_since = 0, 0.0
            self._commit(settled, outputs)

    # Life

    def cleanup(self) -> None:
        """Say goodbye to the store, once what was sent is stored."""
        if not self._serving.end():
            return
        self._sender.close(CLOSE_DEADLINE)
        self._closed = True
        for place in self._places.values():
            place.handler = None
        self._arrivals.close()
        self._disconnect()
        self._serving.close()


def _from_later(messages: Iterator[Message], made_ms: int) -> Iterator[Message]:
    for message in messages:
        if message.timestamp > made_ms:
            yield message
            yield from messages
