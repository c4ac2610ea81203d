"""The connection of a client: who sends, who reads, who waits, and who makes it again.

Whoever waits for something reads: the thread that serves, while no handler runs on it, or a caller
that waits for its answer. So an agent's process needs no second thread; a handler that asks the
server something, or waits for threads that do, is no obstacle.

When the connection is lost, whoever reads makes it again.
"""

from __future__ import annotations

import contextlib
import logging
import random
import select
import socket
import threading
import time
from collections.abc import Callable, Sequence, Sized
from typing import TYPE_CHECKING, Final

from rustic_ai.core.errors import (
    BackendClosedError,
    BackendUnavailableError,
    PortTakenError,
    ProtocolError,
)
from rustic_ai.core.forking import ForkGuard
from rustic_ai.core.messaging.backend.embedded_backend.dial import Link
from rustic_ai.core.messaging.backend.embedded_backend.poller import wait
from rustic_ai.core.messaging.backend.embedded_backend.protocol import Fields, Frame, Op, pack
from rustic_ai.core.messaging.backend.embedded_backend.window import SendWindow
from rustic_ai.core.messaging.core.stop_signal import StopSignal

if TYPE_CHECKING:
    from rustic_ai.core.messaging.backend.embedded_backend.shared.ring import RingWriter

logger: Final = logging.getLogger(__name__)

ANSWER_DEADLINE: Final = 30.0
"""Seconds after which a server that does not answer counts as gone."""
_RECEIVE: Final = 256 << 10
_FIRST_PAUSE: Final = 0.002
_LONGEST_PAUSE: Final = 1.0


class Wire:
    """One connection after another to a server.

    Args:
        dial: makes a connection; errors as `dial.dial`.
        address: names the server, for errors.
        patience: seconds for which a lost server is looked for.
        take_in: takes the frames that came, under `state`.
        restore: tells a server on a new connection all that it must know; called under `sending`
            by the thread that reads, and returns frames that came meanwhile.

    Raises:
        BackendUnavailableError: there is no server.
        PortTakenError: whoever listens is not our server.
        AccessError: it does not let us in.
    """

    def __init__(
        self,
        dial: Callable[[], Link],
        address: Callable[[], str],
        patience: float,
        take_in: Callable[[Sequence[Fields]], None],
        restore: Callable[[Link], list[Frame]],
    ) -> None:
        self._dial = dial
        self._address = address
        self._patience = patience
        self._take_in = take_in
        self._restore = restore
        self.sending = threading.Lock()
        self.state = threading.Lock()
        self._changed = threading.Condition(self.state)
        self._waiters = 0
        self._buffer = bytearray(_RECEIVE)  # one of each call's own would be mapped each time
        self._view = memoryview(self._buffer)
        self.closed = False
        self._reading = False
        self._lost: str | None = None
        self._broken: str | None = None
        self._works = True
        """Whether it is neither closed, nor lost, nor broken: one look instead of three."""
        self._ring: RingWriter | None = None
        self._hold(dial())
        self._guard = ForkGuard(self.close_in_fork)

    def _hold(self, link: Link) -> None:
        """Take a connection, and what of it each message needs."""
        self.link = link
        self._send, self._recv_into = link.socket.send, link.socket.recv_into
        self._cut = link.reader.cut
        self._pollers: dict[StopSignal | None, select.poll] = {}
        self._readable = [(link.socket.fileno(), select.POLLIN)]
        self._works = not self.closed

    def check(self) -> None:
        """Raise if it was closed, or the server lost for good.

        Raises:
            BackendClosedError: it was closed.
            BackendUnavailableError: the server is gone.
        """
        if self.closed:
            raise BackendClosedError
        if self._lost is not None:
            raise BackendUnavailableError(address=self._address(), reason=self._lost)

    def send_unit(self, frame: bytes, window: SendWindow) -> int:
        """Send a unit and keep it in the window; returns its number.

        Raises:
            BackendClosedError: it was closed.
            BackendUnavailableError: the server is gone.
        """
        with self.sending:
            if not self._works:
                self.check()
            unit, ring = window.add(frame), self._ring
            if ring is None:
                self.transmit(frame)
                return unit
            if not ring.put(frame):
                self.transmit(frame)
        if ring.unseen:  # after the lock, see `ring`
            with self.sending:
                self.transmit(b"")
        return unit

    def transmit(self, frame: bytes) -> None:
        """Send on the socket, under `sending`, after what stands in the ring.

        Where the connection is lost, whoever reads sees to it.
        """
        if self._broken is None:
            ring = self._ring
            if ring is not None and ring.used:
                ring.used = False
                frame = pack(Op.LOOK, id=ring.written) + frame
            try:
                sent = self._send(frame)  # in nearly all cases the whole
                if sent < len(frame):
                    self.link.socket.sendall(memoryview(frame)[sent:])
            except OSError as e:
                self.break_off(str(e))

    def use(self, ring: RingWriter, link: Link) -> None:
        """Send through a ring from now on, while it is looked at and the connection is `link`."""
        with self.sending:
            if link is self.link:
                self._ring = ring

    def break_off(self, reason: str) -> None:
        """Note that the connection is lost."""
        self._broken, self._works = self._broken or reason, False
        with contextlib.suppress(OSError):
            self.link.socket.shutdown(socket.SHUT_RDWR)  # wakes whoever reads

    def give_up(self, reason: str) -> None:
        """Note that the server will not have us, under `state`: coming back would not help."""
        self._lost = self._lost or reason
        self.break_off(reason)

    def close(self) -> None:
        """Say goodbye; every call from now on is refused."""
        with self.state:
            self.closed, self._works = True, False
        with self.sending:
            self.transmit(pack(Op.GOODBYE))
            self._ring, self._works = None, False  # a connection may just have been made again
        with contextlib.suppress(OSError):
            self.link.socket.shutdown(socket.SHUT_RDWR)
        with self.state:
            self._changed.notify_all()
            if not self._reading:
                self.link.socket.close()

    def close_in_fork(self) -> None:
        """Close the descriptor of a forked copy; the connection is the original's."""
        self.closed, self._works = True, False
        self._ring = None
        self.link.socket.close()

    def wait(self, done: Callable[[], bool], deadline: float | None = None) -> None:
        """Wait until something has been read; reads itself unless another thread does."""
        if deadline is None:
            deadline = time.monotonic() + ANSWER_DEADLINE
        while True:
            with self.state:
                if done():
                    return
                self.check()
                left = deadline - time.monotonic()
                if left <= 0:
                    raise BackendUnavailableError(
                        address=self._address(), reason="it does not answer"
                    )
                reads = not self._reading
                if reads:
                    self._reading = True
                else:
                    self._await_change(left)
            if reads:
                self._read(left * 1000)

    def read_next(self, stop: StopSignal, enough: Sized, patience: float | None) -> None:
        """Read once; where another thread does so just now, wait for what it brings.

        Args:
            stop: ends the waiting.
            enough: not empty where there is something already.
            patience: milliseconds to wait; None: as long as it takes.
        """
        with self.state:
            if enough:  # another thread has just brought something
                return
            if self._reading:
                self._await_change(ANSWER_DEADLINE)
                return
            self._reading = True
        self._read(patience, stop)

    def _await_change(self, timeout: float) -> None:
        """Wait until somebody else has read, under `state`."""
        self._waiters += 1
        try:
            self._changed.wait(timeout)
        finally:
            self._waiters -= 1

    def peek(self) -> None:
        """Take in what has come, without waiting."""
        with self.state:
            if self._reading or self.closed:
                return
            self._reading = True
        self._read(0)

    def _read(self, timeout: float | None, stop: StopSignal | None = None) -> None:
        """Wait for bytes, `timeout` ms or until `stop`, and take them in; ends `_reading`."""
        frames: Sequence[Fields] = ()
        try:
            if not self._works:
                self.check()
                self._revive(stop)
                if self._broken is not None:
                    return
            frames = self._receive(timeout, stop)
        finally:
            with self.state:
                try:
                    if frames:
                        self._take_in(frames)
                finally:
                    self._reading = False
                    if self._waiters:
                        self._changed.notify_all()
                    if self.closed:
                        self.link.socket.close()

    def _receive(self, timeout: float | None, stop: StopSignal | None) -> Sequence[Fields]:
        """Return frames that came; none where the time is over or `stop` was set first."""
        poller = self._pollers.get(stop)
        try:
            if poller is None:
                poller = self._pollers[stop] = _poll_for(self.link.socket, stop)
            ready = wait(poller, timeout)
            if ready != self._readable and self._readable[0][0] not in dict(ready):
                return ()
            size = self._recv_into(self._buffer)
            if size:
                return self._cut(bytes(self._view[:size]))
            self.break_off("it closed the connection")
        except (OSError, ValueError) as e:  # ValueError: closed meanwhile
            self.break_off(str(e))
        except ProtocolError as e:
            self.break_off(str(e))
        return ()

    def _revive(self, stop: StopSignal | None) -> None:
        """Connect again, as the one who reads; returns without where `stop` is set first."""
        logger.debug("the connection to the message server was lost (%s)", self._broken)
        deadline = time.monotonic() + self._patience
        pause = _FIRST_PAUSE
        self.link.socket.close()
        while True:
            self.check()
            try:
                self._connect_again()
            except (BackendUnavailableError, PortTakenError, ProtocolError, OSError) as e:
                if time.monotonic() + pause > deadline:
                    raise self._lose(e) from e
            else:
                return
            # Jitter, so that all clients of a server that comes back do not arrive at once.
            if _stopped_within(stop, pause * random.uniform(0.5, 1.5)):  # noqa: S311
                return
            pause = min(pause * 2, _LONGEST_PAUSE)

    def _connect_again(self) -> None:
        link = self._dial()
        try:
            with self.sending:
                frames = self._restore(link)
                self._broken = self._ring = None
                self._hold(link)
        except BaseException:
            link.socket.close()
            raise
        with self.state:
            self._take_in(frames)

    def _lose(self, error: Exception) -> BackendUnavailableError:
        reason = error.reason if isinstance(error, BackendUnavailableError) else str(error)
        with self.state:
            self._lost, self._works = reason, False
        return BackendUnavailableError(address=self._address(), reason=reason)


def _poll_for(sock: socket.socket, stop: StopSignal | None = None) -> select.poll:
    poller = select.poll()
    poller.register(sock, select.POLLIN)
    if stop is not None:
        poller.register(stop, select.POLLIN)
    return poller


def _stopped_within(stop: StopSignal | None, seconds: float) -> bool:
    poll = select.poll()
    if stop is not None:
        poll.register(stop, select.POLLIN)
    return bool(poll.poll(seconds * 1000))
