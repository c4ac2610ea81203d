"""A client's second connection to its server, on which descriptors of segments travel.

They would be lost on a connection that is read by `recv`, and reading every message by `recvmsg`
would cost those that have no parts.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import threading
from collections.abc import Iterator

from rustic_ai.core.errors import BackendUnavailableError
from rustic_ai.core.forking import guard_forks
from rustic_ai.core.messaging.backend.embedded_backend.protocol import (
    HEADER,
    HEADER_SIZE,
    Op,
    pack,
)

DEADLINE = 10.0
"""Seconds in which a server answers on a channel."""
_NAME = "the server's channel for descriptors"


class Channel:
    """One such connection. Safe from any thread.

    Args:
        sock: a connection to the server's Unix socket.
        client: number of the client whose channel it is.
        op: RING where it is for a ring alone.

    Raises:
        BackendUnavailableError: the server is gone, or does not know the client.
    """

    def __init__(self, sock: socket.socket, client: int, op: Op = Op.CHANNEL) -> None:
        self._socket = sock
        self._lock = threading.Lock()
        guard_forks(self)
        sock.settimeout(DEADLINE)
        with self._errors_told():
            sock.sendall(pack(op, id=client))
            frame, _ = self._receive()
        if HEADER.unpack_from(frame)[1] != op:
            self.close()
            raise BackendUnavailableError(address=_NAME, reason="it does not know this client")
        self.life: int = HEADER.unpack_from(frame)[6]
        """Life of the server's process."""

    @property
    def closed(self) -> bool:
        """Whether it was closed, by us or since the server is gone."""
        return self._socket.fileno() < 0

    def offer(self, segment: int, fd: int) -> bool:
        """Give the server the descriptor of a segment; False where it cannot take one more.

        Raises:
            BackendUnavailableError: the server is gone.
        """
        return self._give(Op.OFFER, segment, fd)

    def offer_ring(self, fd: int) -> bool:
        """Give the server the descriptor of a ring; errors as of `offer`."""
        return self._give(Op.RING, 0, fd)

    def _give(self, op: Op, segment: int, fd: int) -> bool:
        with self._lock, self._errors_told():
            socket.send_fds(self._socket, [pack(op, id=segment)], [fd])
            frame, _ = self._receive()
            return bool(_number_in(frame, op))

    def want(self, segment: int) -> int | None:
        """Ask the server for the descriptor of a segment; None where it has none.

        Raises:
            BackendUnavailableError: the server is gone.
            OSError: this process has no descriptor left.
        """
        with self._lock, self._errors_told():
            self._socket.sendall(pack(Op.WANT, id=segment))
            frame, fd = self._receive()
            there = _number_in(frame, Op.WANT)
        if there and fd is None:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return fd

    def _receive(self) -> tuple[bytes, int | None]:
        data, fds = b"", []
        while len(data) < HEADER_SIZE:
            more, found, _, _ = socket.recv_fds(
                self._socket, HEADER_SIZE - len(data), 1, socket.MSG_CMSG_CLOEXEC
            )
            fds += found
            if not more:
                raise ConnectionResetError("it closed the connection")
            data += more
        return data, fds[0] if fds else None

    @contextlib.contextmanager
    def _errors_told(self) -> Iterator[None]:
        try:
            yield
        except OSError as e:
            self.close()
            raise BackendUnavailableError(address=_NAME, reason=str(e)) from e

    def close(self) -> None:
        """Close the connection. Idempotent."""
        self._socket.close()

    close_in_fork = close


def _number_in(answer: bytes, op: Op) -> int:
    _, kind, _, _, _, number, _ = HEADER.unpack_from(answer)
    if kind != op:
        raise ConnectionAbortedError("it refused the question")
    return int(number)
