"""The loop of a server: sockets around the core, on one thread."""

from __future__ import annotations

import contextlib
import logging
import select
import socket
import time
from collections import deque
from typing import Any, Final

from rustic_ai.core.errors import JournalError, ProtocolError
from rustic_ai.core.messaging.backend.embedded_backend.access import is_same_user
from rustic_ai.core.messaging.backend.embedded_backend.connection import Connection
from rustic_ai.core.messaging.backend.embedded_backend.core import Core
from rustic_ai.core.messaging.backend.embedded_backend.journal import Journal
from rustic_ai.core.messaging.backend.embedded_backend.poller import Poller
from rustic_ai.core.messaging.backend.embedded_backend.protocol import Op, pack
from rustic_ai.core.messaging.backend.embedded_backend.session import Session
from rustic_ai.core.messaging.backend.embedded_backend.shared.descriptors import (
    Descriptors,
    ring_from,
)
from rustic_ai.core.messaging.backend.embedded_backend.streams import STREAM, Streams
from rustic_ai.core.messaging.core.stop_signal import StopSignal

logger: Final = logging.getLogger(__name__)

GREETING_DEADLINE: Final = 2.0
"""Seconds that a connection has to say, and where needed to prove, that it is a client."""
_RECEIVE: Final = 256 << 10
_SEND: Final = 256 << 10
_BUFFERS: Final = 1 << 20
_MAX_OUTPUT: Final = 64 << 20
"""Bytes that may wait for a client; beyond, nothing more is read from it."""
_MOST_READS: Final = 16
"""Reads of one connection before others have their turn."""
_READ: Final = select.POLLIN  # those of epoll are the same
_WRITE: Final = select.POLLOUT
_IN_TURN: Final = 1 << 16
"""Added where a stream is read, and its ring with it; no event of a poller."""


class Loop:
    """Accepts, receives, sends; whatever goes wrong in a connection costs that one alone.

    Args:
        core: the server's mind.
        journal: is written before anybody is told that something is stored.
        listener: of TCP.
        local: the Unix socket, where there is one.
        stop: wakes it.
        max_connections: one more is refused.
    """

    def __init__(
        self,
        core: Core,
        journal: Journal | None,
        listener: socket.socket,
        local: socket.socket | None,
        stop: StopSignal,
        max_connections: int,
    ) -> None:
        self._core = core
        self._journal = journal
        self._listeners = {each.fileno(): each for each in (listener, local) if each is not None}
        self._max_connections = max_connections
        self._stop_fd = stop.fileno()
        self._poller = Poller()
        for fd in (self._stop_fd, *self._listeners):
            self._poller.register(fd, _READ)
        self._descriptors = Descriptors(core.book)
        self._by_fd: dict[int, Connection] = {}
        self._connections: dict[Session, Connection] = {}
        self._greeting: dict[Connection, None] = {}
        self._ending: list[Connection] = []
        self._streams = Streams(self._poller, self._listen, self._hear)
        # A buffer made for each call would be mapped and unmapped by the allocator each time.
        self._buffer = bytearray(_RECEIVE)
        self._view = memoryview(self._buffer)

    @property
    def is_empty(self) -> bool:
        """Whether no client is connected; what only looks at shared memory does not count."""
        return all(session.channel_of for session in self._connections)

    def turn(self) -> None:
        """Wait for something, and do it."""
        self._look(self._patience())

    def _look(self, patience: float | None) -> None:
        by_fd = self._by_fd
        wait = self._streams.wait if self._streams.connections else self._poller.poll
        for fd, events in wait(patience):
            connection = by_fd.get(fd)
            if connection is not None:
                self._serve(connection, events)
            elif fd in self._listeners:
                self._accept(self._listeners[fd])
        core = self._core
        if core.evicted:
            self._drop_evicted()
        if core.stalled:
            core.drained()
        if core.dirty or core.moved or self._journal is not None:
            self._flush()
        if self._ending:
            self._drop_ending()
        if self._greeting:
            self._drop_silent()
        if self._descriptors.asked:
            self._descriptors.give_up_waiting()

    def _listen(self, connection: Connection) -> None:
        """Say what the loop wants to hear of a connection."""
        # Who asks and asks without hearing the answers is not heard until it does.
        heard = (
            connection not in self._streams.connections
            and connection.session.output_size < _MAX_OUTPUT
        )
        events = (_READ if heard else 0) | (_WRITE if connection.writing else 0)
        self._poller.modify(connection.socket.fileno(), events)
        self._core.counted["streams"] = len(self._streams.connections)

    def _drop_evicted(self) -> None:
        for session in self._core.evicted:
            connection = self._connections.get(session)
            if connection is not None:
                self._drop(connection)
        self._core.evicted.clear()

    def _drop_ending(self) -> None:
        """Drop those who have got their last word, and tell others what that brings."""
        for connection in self._ending:
            self._drop(connection)
        self._ending.clear()
        self._flush()

    def hear_no_more_of_stop(self) -> bool:
        """Do not wait for the stop signal any more; False where that was so before."""
        if self._stop_fd < 0:
            return False
        self._poller.unregister(self._stop_fd)
        self._stop_fd = -1
        self._look(0)  # clients that are gone may not have been seen
        return True

    def close(self) -> None:
        """End all connections."""
        for connection in list(self._connections.values()):
            self._drop(connection)
        self._poller.close()
        self._descriptors.close_all()
        for listener in self._listeners.values():
            listener.close()

    def _patience(self) -> float | None:
        now = time.monotonic()
        patience = self._core.tick(now)
        if self._core.dirty or self._core.moved:
            return 0.0
        if self._journal is not None:
            self._journal.sync_if_due(now)
            patience = _sooner(patience, self._journal.sync_due(now))
        if self._greeting:
            oldest = next(iter(self._greeting))
            patience = _sooner(patience, max(0.0, oldest.since + GREETING_DEADLINE - now))
        return patience

    def _drop_silent(self) -> None:
        now = time.monotonic()
        while (oldest := next(iter(self._greeting), None)) is not None:
            if now - oldest.since < GREETING_DEADLINE:
                return
            logger.warning("%s did not greet in time, dropped", oldest.session.peer)
            self._drop(oldest)

    def _accept(self, listener: Any) -> None:
        try:
            sock, address = listener.accept()
        except OSError as e:  # gone again, or no descriptors left: those who are here go on
            logger.warning("a connection could not be accepted: %s", e)
            return
        local = sock.family != socket.AF_INET
        peer = "a process of this machine" if local else f"{address[0]}:{address[1]}"
        reason = ""
        if len(self._connections) >= self._max_connections:
            reason = f"there are {self._max_connections} connections already"
        elif local and not is_same_user(sock):
            reason = "this server is another user's"
        sock.setblocking(False)
        if reason:
            self._core.counted["refused_connections"] += 1
            logger.warning("%s refused: %s", peer, reason)
            with contextlib.suppress(OSError):
                sock.send(pack(Op.ERROR, reason.encode()))
            sock.close()
            return
        if local:
            for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
                sock.setsockopt(socket.SOL_SOCKET, option, _BUFFERS)
        else:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        session = self._core.connected(peer, trusted=local)
        connection = Connection(sock, session, time.monotonic())
        self._connections[session] = self._by_fd[sock.fileno()] = connection
        self._greeting[connection] = None
        self._poller.register(sock.fileno(), _READ)

    def _serve(self, connection: Connection, events: int) -> None:
        """Receive and send; whatever goes wrong costs this connection alone."""
        session = connection.session
        peer = session.peer
        try:
            if events & _WRITE:
                self._send(connection)
            if events & ~_WRITE:  # bytes, or its end
                if session.ring is None and not session.channel_of:  # nearly always
                    self._receive_bytes(connection)
                else:
                    self._receive(connection, in_turn=events & _IN_TURN)
        except ProtocolError as e:
            logger.warning("%s broke the protocol, dropped: %s", peer, e)
            with contextlib.suppress(OSError):
                connection.socket.send(pack(Op.ERROR, str(e).encode()))
            self._drop(connection)
        except OSError as e:
            logger.debug("%s is gone: %s", peer, e)
            self._drop(connection)
        except JournalError:
            raise
        except Exception:
            logger.exception("serving %s failed, dropped", peer)
            self._drop(connection)

    def _hear(self, connection: Connection) -> None:
        """Receive, unless it asks and asks without hearing the answers."""
        if connection.session.output_size < _MAX_OUTPUT:
            self._serve(connection, _READ | _IN_TURN)

    def _receive(self, connection: Connection, *, in_turn: int) -> None:
        session = connection.session
        if session.channel_of:
            self._receive_descriptors(connection)
        elif session.ring is None or not in_turn:
            self._receive_bytes(connection)  # it says itself what of the ring comes before these
        else:
            written = session.ring.written()  # after what has come on the socket by now
            for _ in range(_MOST_READS):
                if not self._receive_bytes(connection):
                    break
            else:
                return
            if not session.ended:
                self._core.look(session, written)

    def _receive_bytes(self, connection: Connection) -> bool:
        """Take what has come on the socket; says whether there may be more."""
        session = connection.session
        try:
            size = connection.socket.recv_into(self._buffer)
        except BlockingIOError:
            return False
        except OSError:
            if session.ring is None:
                raise
            size = 0
        if not size:
            if not session.ended:
                self._core.look(session)  # what it wrote last
            self._drop(connection)
            return False
        if not session.ended:
            self._core.received(session, bytes(self._view[:size]))
            if self._greeting and session.greeted:
                self._greeting.pop(connection, None)
                if session.channel_of and not session.brings_ring:
                    self._descriptors.open(session.channel_of, connection.socket)
            producer = session.producer
            if producer is not None and producer.units - connection.units >= STREAM:
                self._streams.consider(connection)
        if session.ended:
            self._ending.append(connection)
        return not session.ended

    def _receive_descriptors(self, connection: Connection) -> None:
        client = connection.session.channel_of
        if not connection.session.brings_ring:
            if not self._descriptors.read(client, connection.socket):
                self._drop(connection)
            return
        session = self._core.clients.session_of(client)
        try:
            ring = ring_from(connection.socket)
        except BlockingIOError:
            return
        if session is None or ring is None or session.ring is not None:
            self._drop(connection)
            return
        session.ring = ring
        self._core.counted["rings"] += 1
        self._streams.watch(self._connections[session])
        connection.socket.send(pack(Op.RING, n=1))

    def _flush(self) -> None:
        core = self._core
        while core.dirty or core.moved:
            if self._journal is not None:
                core.settle()
                self._journal.commit()  # before anybody is told
            for session in core.take_dirty():
                connection = self._connections.get(session)
                if connection is not None and not connection.writing:
                    self._serve(connection, _WRITE)
            if core.stalled:
                core.drained()
        if self._journal is not None:
            self._journal.commit()

    def _send(self, connection: Connection) -> None:
        session = connection.session
        output = session.output
        if session.producer is not None and connection not in self._streams.connections:
            connection.units = session.producer.units  # it may have waited for this: no stream
        while output:
            if session.output_size < _SEND:  # nearly always
                data: bytes | memoryview = b"".join(output)
                output.clear()
            else:
                data = _first(output)
            size = len(data)
            try:
                sent = connection.socket.send(data)
            except BlockingIOError:
                sent = 0
            session.output_size -= sent
            if sent < size:
                output.appendleft(memoryview(data)[sent:])
                break
        if output or connection.writing:
            connection.writing = bool(output)
            self._listen(connection)

    def _drop(self, connection: Connection) -> None:
        if self._connections.pop(connection.session, None) is None:
            return
        self._greeting.pop(connection, None)
        self._streams.end(connection)
        self._core.counted["streams"] = len(self._streams.connections)
        self._core.counted["refused_connections"] += not connection.session.greeted
        self._core.disconnected(connection.session)
        if connection.session.ring is not None:
            connection.session.ring.close()
            connection.session.ring = None
            self._core.counted["rings"] -= 1
        if connection.session.channel_of:
            self._descriptors.close(connection.session.channel_of, connection.socket)
        self._by_fd.pop(connection.socket.fileno(), None)
        self._poller.unregister(connection.socket.fileno())
        connection.socket.close()


def _first(output: deque[bytes | memoryview]) -> bytes | memoryview:
    """Take off what is sent together."""
    data = output.popleft()
    if not output or len(data) + len(output[0]) >= _SEND:
        return data
    parts, size = [data], len(data)
    while output and size + len(output[0]) < _SEND:
        parts.append(output.popleft())
        size += len(parts[-1])
    return b"".join(parts)


def _sooner(one: float | None, other: float | None) -> float | None:
    if one is None or other is None:
        return other if one is None else one
    return min(one, other)
