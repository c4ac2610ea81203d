"""One connection to the server.

Whoever waits for something reads: the thread that serves, while no handler runs on it, or a caller
that waits for its answer. So an agent's process needs no second thread; a handler that asks the
server something, or waits for threads that do, is no obstacle. Deliveries that come meanwhile are
put off until it has returned.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator

from rustic_ai.core.errors import (
    BackendClosedError,
    BackendUnavailableError,
    MessageTooLargeError,
    PortTakenError,
    ProtocolError,
)
from rustic_ai.core.forking import guard_forks
from rustic_ai.core.messaging.backend.embedded_backend.inbox import FrameHandler, Inbox
from rustic_ai.core.messaging.backend.embedded_backend.protocol import (
    FROM_NOW,
    HEADER_SIZE,
    MAGIC,
    VERSION,
    Frame,
    FrameReader,
    Op,
    Query,
    pack,
    pack_names,
    pack_publish,
)
from rustic_ai.core.messaging.core.stop_signal import StopSignal

logger = logging.getLogger(__name__)

ANSWER_DEADLINE = 30.0
"""Seconds after which a server that does not answer counts as gone."""
GREETING_DEADLINE = 2.0
"""Seconds in which a server must answer the greeting."""
CONNECT_DEADLINE = 5.0
"""Seconds in which a server that is being started must listen."""
WINDOW = 4096
"""Messages that may be on their way to a subscriber without its acknowledgement."""
_RECEIVE = 256 << 10
_LARGEST_ANSWER = 1 << 30


class ServerConnection:
    """Publishes, subscribes and asks. Safe from any thread, and from inside handlers."""

    def __init__(self, sock: socket.socket, address: str) -> None:
        self._socket = sock
        self._address = address
        self._frames = FrameReader(_LARGEST_ANSWER)
        self._sending = threading.Lock()
        self._state = threading.Condition()
        self._reading = False
        self._lost: str | None = None
        self._closed = False
        self._max_frame = 0
        self._sent = self._accepted = 0
        self._requests = itertools.count(1)
        self._answers: dict[int, deque[Frame]] = {}
        self._inbox = Inbox()

    @classmethod
    def open(cls, host: str, port: int) -> ServerConnection:
        """Connect, and greet.

        Raises:
            BackendUnavailableError: nobody listens.
            PortTakenError: whoever listens is not our server.
        """
        address = f"{host}:{port}"
        target = ("127.0.0.1" if host == "localhost" else host, port)
        try:
            sock = socket.create_connection(target, timeout=GREETING_DEADLINE)
        except OSError as e:
            raise BackendUnavailableError(address=address, reason=str(e)) from e
        sock.settimeout(ANSWER_DEADLINE)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = cls(sock, address)
        guard_forks(connection)
        try:
            connection._greet()
        except BaseException:
            sock.close()
            raise
        return connection

    @classmethod
    def open_patiently(cls, host: str, port: int) -> ServerConnection:
        """Connect to a server that may just be starting; errors as in `open`."""
        deadline = time.monotonic() + CONNECT_DEADLINE
        pause = 0.005
        while True:
            try:
                return cls.open(host, port)
            except BackendUnavailableError:
                if time.monotonic() + pause > deadline:
                    raise
            time.sleep(pause)  # a port that is not open yet gives nothing to wait on
            pause = min(pause * 2, 0.2)

    def _greet(self) -> None:
        self._send(pack(Op.HELLO, id=MAGIC, n=VERSION))
        deadline = time.monotonic() + GREETING_DEADLINE
        try:
            self._wait(lambda: self._max_frame > 0, deadline)
        except ProtocolError as e:
            raise PortTakenError(address=self._address) from e
        except BackendUnavailableError as e:
            if time.monotonic() >= deadline:  # it listens, and does not know our greeting
                raise PortTakenError(address=self._address) from e
            raise

    # What callers want

    def publish(self, topic: int, message_id: int, ttl: float | None, envelope: bytes) -> int:
        """Send a message; returns the count to wait for with `wait_accepted`.

        Raises:
            MessageTooLargeError: the server would not take it; nothing was sent.
            BackendUnavailableError: the server is gone.
        """
        size = HEADER_SIZE + len(envelope)
        if size > self._max_frame:
            raise MessageTooLargeError(size=size, limit=self._max_frame)
        frame = pack_publish(topic, message_id, ttl, envelope)
        with self._sending:
            self._send_locked(frame)
            self._sent += 1
            return self._sent

    def wait_accepted(self, count: int) -> None:
        """Wait until the server has stored the first `count` messages of this connection."""
        self._wait(lambda: self._accepted >= count)

    def open_topic(self, namespace: str, name: str) -> int:
        """Return the number of a topic, made on first use."""
        return self._ask(Op.TOPIC, pack_names(namespace, name)).topic

    def query(
        self, kind: Query, *, topic: int = 0, start: int = 0, body: bytes = b""
    ) -> Iterator[Frame]:
        """Ask; yields the ROWS frames of the answer, the last with ``aux == 0``."""
        with self._asking() as (number, answers):
            self._send(pack(Op.QUERY, body, n=number, aux=kind, topic=topic, id=start))
            while True:
                self._wait(lambda: bool(answers))
                rows = answers.popleft()
                yield rows
                if rows.aux == 0:
                    return
                if kind in {Query.FROM_POSITION, Query.SINCE_ID}:  # pages, each asked for
                    kind = Query.FROM_POSITION
                    self._send(pack(Op.QUERY, n=number, aux=kind, topic=topic, id=rows.id))

    def subscribe(self, topic: int, subscriber: str, handler: FrameHandler) -> int:
        """Have `handler` called with each PUBLISH frame from now on; returns the number."""
        with self._state:
            subscription = self._inbox.add(handler)
        body, number = pack_names(subscriber), subscription.number
        self._send(pack(Op.SUBSCRIBE, body, aux=number, topic=topic, n=WINDOW, id=FROM_NOW))
        self._wait(lambda: subscription.confirmed)
        return number

    def unsubscribe(self, number: int) -> None:
        """End a subscription; its handler is not called again."""
        with self._state:
            subscription = self._inbox.get(number)
            if subscription is None:
                return
            subscription.handler = _ignore
        self._send(pack(Op.UNSUBSCRIBE, aux=number))
        self._wait(lambda: self._inbox.get(number) is None)

    def replace_handler(self, number: int, handler: FrameHandler) -> None:
        """Give a subscription another handler."""
        self.check()
        with self._state:
            subscription = self._inbox.get(number)
            if subscription is not None:
                subscription.handler = handler

    def serve(self, stop: StopSignal) -> None:
        """Run handlers on this thread until `stop` is set, or the connection is closed.

        Raises:
            BackendUnavailableError: the server is gone.
        """
        try:
            while not (stop.is_set() or self._closed):
                if not self._handle_next():
                    self._acknowledge()
                    self._read_next(stop)
            self._acknowledge()
        except BackendClosedError:
            return

    def check(self) -> None:
        """Raise if the connection was closed or lost.

        Raises:
            BackendClosedError: it was closed.
            BackendUnavailableError: the server is gone.
        """
        if self._closed:
            raise BackendClosedError
        if self._lost is not None:
            raise BackendUnavailableError(address=self._address, reason=self._lost)

    def close(self) -> None:
        """Say goodbye; every call from now on is refused. Idempotent."""
        with self._state:
            if self._closed:
                return
            self._closed = True
        with contextlib.suppress(OSError), self._sending:
            self._socket.sendall(pack(Op.GOODBYE))
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes whoever reads
        with self._state:
            self._state.notify_all()
        self._socket.close()

    def close_in_fork(self) -> None:
        """Close the descriptor of a forked copy; the connection is the original's."""
        self._closed = True
        self._socket.close()

    # Sending

    def _send(self, frame: bytes) -> None:
        with self._sending:
            self._send_locked(frame)

    def _send_locked(self, frame: bytes) -> None:
        self.check()
        try:
            self._socket.sendall(frame)
        except OSError as e:
            raise self._lose(str(e)) from e

    def _ask(self, op: Op, body: bytes) -> Frame:
        with self._asking() as (number, answers):
            self._send(pack(op, body, n=number))
            self._wait(lambda: bool(answers))
            return answers.popleft()

    @contextlib.contextmanager
    def _asking(self) -> Iterator[tuple[int, deque[Frame]]]:
        answers: deque[Frame] = deque()
        with self._state:
            number = next(self._requests)
            self._answers[number] = answers
        try:
            yield number, answers
        finally:
            with self._state:
                self._answers.pop(number, None)

    # Waiting and reading

    def _wait(self, done: Callable[[], bool], deadline: float | None = None) -> None:
        """Wait until something has been read; reads itself unless another thread does."""
        if deadline is None:
            deadline = time.monotonic() + ANSWER_DEADLINE
        while True:
            with self._state:
                if done():
                    return
                self.check()
                left = deadline - time.monotonic()
                if left <= 0:
                    raise self._lose("it does not answer")
                if self._reading:
                    self._state.wait(left)
                    continue
                self._reading = True
            self._read(left)

    def _read_next(self, stop: StopSignal) -> None:
        """Read once; where another thread does so just now, wait for what it brings."""
        with self._state:
            if self._inbox.has_deliveries:  # another thread has just brought some
                return
            if self._reading:
                self._state.wait(ANSWER_DEADLINE)
                return
            self._reading = True
        self._read(None, stop)

    def _read(self, timeout: float | None, stop: StopSignal | None = None) -> None:
        """Wait for bytes, or `stop`, and take in what is complete; ends `_reading`."""
        try:
            data = self._receive(timeout, stop)
            with self._state:
                for frame in self._frames.feed(data):
                    self._take_in(frame)
        finally:
            with self._state:
                self._reading = False
                self._state.notify_all()

    def _receive(self, timeout: float | None, stop: StopSignal | None) -> bytes:
        """Return bytes that came; none where the time is over or `stop` was set first."""
        self.check()
        try:
            waiting = select.poll()  # unlike select, it takes descriptors above 1,023
            waiting.register(self._socket, select.POLLIN)
            if stop is not None:
                waiting.register(stop, select.POLLIN)
            ready = waiting.poll(None if timeout is None else timeout * 1000)
            if self._socket.fileno() not in [fd for fd, _ in ready]:
                return b""
            data = self._socket.recv(_RECEIVE)
        except (OSError, ValueError) as e:  # ValueError: closed meanwhile
            raise self._lose(str(e)) from e
        if not data:
            raise self._lose("it closed the connection")
        return data

    def _take_in(self, frame: Frame) -> None:
        match frame.op:
            case Op.PUBLISH if self._inbox.put(frame):
                pass
            case Op.PUBLISHED:
                self._accepted = frame.id
            case Op.DELIVER:
                self._inbox.expect(frame)
            case Op.TOPIC | Op.ROWS:
                if frame.n in self._answers:  # else nobody waits for it any more
                    self._answers[frame.n].append(frame)
            case Op.SUBSCRIBE:
                self._inbox.confirm(frame.aux, frame.id)
            case Op.UNSUBSCRIBE:
                self._inbox.remove(frame.aux)
            case Op.HELLO if frame.id == MAGIC:
                self._max_frame = frame.n
            case Op.ERROR:
                raise self._lose(f"it refused: {frame.body.decode(errors='replace')}")
            case _:
                raise ProtocolError(summary=f"{self._address} sent a frame of kind {frame.op}")

    def _handle_next(self) -> bool:
        """Run the handler of the next delivery; False where none waits."""
        with self._state:
            delivery = self._inbox.take()
        if delivery is None:
            return False
        subscription = delivery.subscription
        try:
            subscription.handler(delivery.frame)
        except Exception:
            logger.exception("a message handler failed")
        subscription.handled = delivery.position
        if subscription.handled - subscription.acked >= WINDOW // 4:
            self._acknowledge()
        return True

    def _acknowledge(self) -> None:
        with self._state:
            due = self._inbox.unacknowledged()
        for subscription in due:
            subscription.acked = subscription.handled
            self._send(pack(Op.ACK, aux=subscription.number, id=subscription.acked))

    def _lose(self, reason: str) -> Exception:
        """Note that the connection is lost, and return the error to raise."""
        with self._state:
            if self._closed:
                return BackendClosedError()
            if self._lost is None:
                self._lost = reason
            self._state.notify_all()
            return BackendUnavailableError(address=self._address, reason=self._lost)


def _ignore(_: Frame) -> None:
    """Take the place of the handler of an ended subscription."""
