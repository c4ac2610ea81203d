"""The server: sockets around the core, one selector loop in a thread of its own."""

from __future__ import annotations

import contextlib
import errno
import logging
import selectors
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from rustic_ai.core.errors import PortTakenError, ProtocolError
from rustic_ai.core.messaging.backend.embedded_backend.config import EMBEDDED_SERVER_PORT
from rustic_ai.core.messaging.backend.embedded_backend.core import Core, Session
from rustic_ai.core.messaging.backend.embedded_backend.protocol import MAX_FRAME, Op, pack
from rustic_ai.core.messaging.core.stop_signal import StopSignal

logger = logging.getLogger(__name__)

GREETING_DEADLINE = 2.0
"""Seconds that a connection has to say that it is a client."""
_RECEIVE = 256 << 10
_SEND = 1 << 20


def loopback(host: str) -> str:
    """Return the address for a host; 'localhost' is IPv4's, wherever the resolver points."""
    return "127.0.0.1" if host == "localhost" else host


@dataclass(slots=True, eq=False)
class _Connection:
    socket: socket.socket
    peer: str
    session: Session
    since: float
    writing: bool = False


class EmbeddedServer:
    """Keeps messages in memory and pushes them to subscribers.

    Works on a thread of its own; `start` and `stop` are coroutines for the sake of programs that
    have a loop, and hold it up for a moment only. An error in one connection ends that one.

    Args:
        host: where to listen; 'localhost' is 127.0.0.1.
        port: the port; 0 takes a free one, which `port` then says.
        max_frame: largest message that is taken, in bytes.
    """

    def __init__(
        self,
        host: str = "localhost",
        port: int = EMBEDDED_SERVER_PORT,
        *,
        max_frame: int = MAX_FRAME,
    ) -> None:
        self.host = host
        self.port = port
        self._core = Core(max_frame)
        self._selector: selectors.BaseSelector | None = None
        self._listener: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self._stop: StopSignal | None = None
        self._connections: dict[Session, _Connection] = {}
        self._greeting: dict[_Connection, None] = {}
        self._ends_when_empty = False
        self._when_decided: Callable[[bool], None] = lambda _: None

    @property
    def running(self) -> bool:
        """Whether it listens."""
        return self._thread is not None and self._thread.is_alive()

    async def start(self) -> None:
        """Listen; returns when clients can connect. Again: does nothing.

        Raises:
            PortTakenError: somebody else listens there.
            OSError: the address cannot be used.
        """
        self.start_thread()

    async def stop(self) -> None:
        """End all connections and free the port; returns when both is done. Again: does nothing."""
        self.stop_thread()

    def start_thread(self) -> None:
        """Do what `start` does, without a loop."""
        if self.running:
            return
        self._listener = self._listen()
        self.port = self._listener.getsockname()[1]
        self._stop = StopSignal()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._stop, selectors.EVENT_READ)
        name = f"rustic-server-{self.port}"
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def stop_thread(self) -> None:
        """Do what `stop` does, without a loop."""
        if self._thread is not None and self._stop is not None:
            self._stop.set()
            self._thread.join()
            self._stop.close()
            self._thread = self._stop = None

    def join(self) -> None:
        """Wait until it ends by itself, see `end_when_empty`."""
        if self._thread is not None:
            self._thread.join()

    def end_when_empty(self, when_decided: Callable[[bool], None]) -> None:
        """Let it end as soon as no client is connected.

        Args:
            when_decided: called with True if that is so now, or with False if it stays for others.
        """
        self._when_decided = when_decided
        self._ends_when_empty = True
        if self._stop is not None:
            self._stop.set()  # wakes the loop, which sees why

    def _listen(self) -> socket.socket:
        address = (loopback(self.host), self.port)
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(512)
            listener.setblocking(False)
        except OSError as e:
            listener.close()
            if e.errno == errno.EADDRINUSE:
                raise PortTakenError(address=f"{self.host}:{self.port}") from e
            raise
        return listener

    # On the server's thread from here on.

    def _run(self) -> None:
        assert self._selector is not None
        assert self._listener is not None
        assert self._stop is not None
        try:
            while not self._over():
                for key, events in self._selector.select(self._patience()):
                    if key.fileobj is self._listener:
                        self._accept()
                    elif key.fileobj is not self._stop:
                        self._serve(key.data, events)
                self._flush()
                self._drop_silent()
        finally:
            for connection in list(self._connections.values()):
                self._drop(connection)
            self._selector.close()
            self._listener.close()

    def _over(self) -> bool:
        assert self._stop is not None
        if not self._stop.is_set():
            return False
        if not self._ends_when_empty:
            return True
        if self._selector is not None and self._stop in self._selector.get_map():
            # One more look at the sockets first: clients that are gone may not have been seen.
            self._selector.unregister(self._stop)
            for key, events in self._selector.select(0):
                if isinstance(key.data, _Connection):
                    self._serve(key.data, events)
            self._flush()
            self._when_decided(not self._connections)
        return not self._connections

    def _patience(self) -> float | None:
        oldest = next(iter(self._greeting), None)
        if oldest is None:
            return None
        return max(0.0, oldest.since + GREETING_DEADLINE - time.monotonic())

    def _drop_silent(self) -> None:
        now = time.monotonic()
        while (oldest := next(iter(self._greeting), None)) is not None:
            if now - oldest.since < GREETING_DEADLINE:
                return
            logger.warning("%s said nothing for %g s, dropped", oldest.peer, GREETING_DEADLINE)
            self._drop(oldest)

    def _accept(self) -> None:
        assert self._listener is not None
        assert self._selector is not None
        try:
            sock, peer = self._listener.accept()
        except OSError as e:  # gone again, or no descriptors left: those who are here go on
            logger.warning("a connection could not be accepted: %s", e)
            return
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = _Connection(
            sock, f"{peer[0]}:{peer[1]}", self._core.connected(), time.monotonic()
        )
        self._connections[connection.session] = connection
        self._greeting[connection] = None
        self._selector.register(sock, selectors.EVENT_READ, connection)

    def _serve(self, connection: _Connection, events: int) -> None:
        """Receive and send; whatever goes wrong costs this connection alone."""
        try:
            if events & selectors.EVENT_WRITE:
                self._send(connection)
            if events & selectors.EVENT_READ:
                self._receive(connection)
        except ProtocolError as e:
            logger.warning("%s broke the protocol, dropped: %s", connection.peer, e)
            with contextlib.suppress(OSError):
                connection.socket.send(pack(Op.ERROR, str(e).encode()))
            self._drop(connection)
        except OSError as e:
            logger.debug("%s is gone: %s", connection.peer, e)
            self._drop(connection)
        except Exception:
            logger.exception("serving %s failed, dropped", connection.peer)
            self._drop(connection)

    def _receive(self, connection: _Connection) -> None:
        try:
            data = connection.socket.recv(_RECEIVE)
        except BlockingIOError:
            return
        session = connection.session
        if data:
            self._core.received(session, data)
            if session.greeted:
                self._greeting.pop(connection, None)
        if not data or session.ended:
            self._drop(connection)

    def _flush(self) -> None:
        for session in self._core.take_dirty():
            connection = self._connections.get(session)
            if connection is not None and not connection.writing:
                self._serve(connection, selectors.EVENT_WRITE)

    def _send(self, connection: _Connection) -> None:
        output = connection.session.output
        while output:
            parts, size = [], 0
            while output and size < _SEND:
                parts.append(output.popleft())
                size += len(parts[-1])
            data = parts[0] if len(parts) == 1 else b"".join(parts)
            try:
                sent = connection.socket.send(data)
            except BlockingIOError:
                sent = 0
            if sent < len(data):
                output.appendleft(data[sent:])
                break
        self._want_write(connection, bool(output))

    def _want_write(self, connection: _Connection, wanted: bool) -> None:  # noqa: FBT001
        if wanted != connection.writing:
            assert self._selector is not None
            connection.writing = wanted
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if wanted else 0)
            self._selector.modify(connection.socket, events, connection)

    def _drop(self, connection: _Connection) -> None:
        if self._connections.pop(connection.session, None) is None:
            return
        assert self._selector is not None
        self._greeting.pop(connection, None)
        self._core.disconnected(connection.session)
        self._selector.unregister(connection.socket)
        connection.socket.close()
