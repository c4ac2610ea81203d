"""The server's descriptors of its clients' segments, and the connections that carry them."""

from __future__ import annotations

import contextlib
import os
import socket

from rustic_ai.core.errors import ProtocolError
from rustic_ai.core.messaging.backend.embedded_backend.protocol import (
    HEADER,
    HEADER_SIZE,
    Op,
    pack,
)
from rustic_ai.core.messaging.backend.embedded_backend.shared.book import Book

_RECEIVE = 64 * HEADER_SIZE
_MOST = 64
"""Descriptors that one call takes; the kernel hands over those of one `sendmsg` at a time."""


class Descriptors:
    """Takes segments from their owners, and gives them to readers.

    Args:
        book: says who owns and needs what.
    """

    def __init__(self, book: Book) -> None:
        self._book = book
        self._fds: dict[int, int] = {}
        self._channels: dict[int, socket.socket] = {}
        self._rests: dict[int, bytes] = {}
        book.look = self.read

    def open(self, client: int, sock: socket.socket) -> None:
        """Take the channel of a client; one before it is not heard any more."""
        self._channels[client] = sock
        self._rests[client] = b""

    def close(self, client: int, sock: socket.socket) -> None:
        """Take note that a channel is closed."""
        if self._channels.get(client) is sock:
            del self._channels[client], self._rests[client]
            self._book.gone(client)

    def read(self, client: int) -> bool:
        """Do what a client asks on its channel; False where that has ended.

        Raises:
            ProtocolError: it broke the protocol.
        """
        sock = self._channels.get(client)
        while sock is not None:
            fds: list[int] = []
            try:
                data, fds, _, _ = socket.recv_fds(sock, _RECEIVE, _MOST, socket.MSG_CMSG_CLOEXEC)
                if not data:
                    return False
                self._obey(client, sock, self._rests[client] + data, fds)
            except BlockingIOError:
                return True
            except OSError:
                return False
            finally:
                for fd in fds:  # those that nobody has taken
                    os.close(fd)
        return False

    def _obey(self, client: int, sock: socket.socket, data: bytes, fds: list[int]) -> None:
        offset = 0
        while len(data) - offset >= HEADER_SIZE:
            length, op, _, _, _, _, segment = HEADER.unpack_from(data, offset)
            if length != HEADER_SIZE:
                raise ProtocolError(summary=f"a frame of {length:,} bytes on a channel")
            if op == Op.OFFER and fds:
                self._take(client, segment, fds.pop(0))
            elif op == Op.WANT:
                self._give(client, segment, sock)
            else:
                raise ProtocolError(summary=f"a frame of kind {op} on a channel")
            offset += length
        self._rests[client] = data[offset:]

    def _take(self, client: int, segment: int, fd: int) -> None:
        from rustic_ai.core.messaging.backend.embedded_backend.shared.segment import sealed_size

        try:
            if sealed_size(fd) is None:
                raise ProtocolError(summary=f"segment {segment:x} is a file that could shrink")
            if self._book.offered(client, segment):
                self._fds[segment], fd = fd, -1
        finally:
            if fd >= 0:
                os.close(fd)

    def _give(self, client: int, segment: int, sock: socket.socket) -> None:
        if self._book.read_by(client, segment):
            socket.send_fds(sock, [pack(Op.WANT, id=segment, n=1)], [self._fds[segment]])
        else:
            sock.send(pack(Op.WANT, id=segment))

    def drop_unused(self) -> None:
        """Close the descriptors of segments that nobody needs."""
        for segment in self._book.closed:
            os.close(self._fds.pop(segment))
        self._book.closed.clear()

    def close_all(self) -> None:
        """Close all descriptors."""
        for fd in self._fds.values():
            with contextlib.suppress(OSError):
                os.close(fd)
        self._fds.clear()
