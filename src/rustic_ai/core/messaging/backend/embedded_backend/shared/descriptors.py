"""The server's descriptors of its clients' segments, and the connections that carry them."""

from __future__ import annotations

import contextlib
import os
import socket
from typing import TYPE_CHECKING

from rustic_ai.core.errors import ProtocolError
from rustic_ai.core.messaging.backend.embedded_backend.protocol import (
    HEADER,
    HEADER_SIZE,
    Op,
    pack,
)
from rustic_ai.core.messaging.backend.embedded_backend.shared.book import Book

if TYPE_CHECKING:
    from rustic_ai.core.messaging.backend.embedded_backend.shared.ring import RingReader

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
        self.asked: dict[int, list[socket.socket]] = {}
        """Who waits for segments whose owners may come back."""
        book.close = self._close

    def open(self, client: int, sock: socket.socket) -> None:
        """Take the channel of a client; one before it is not heard any more."""
        self._channels[client] = sock
        self._rests[client] = b""
        self._book.channel_opened(client)

    def close(self, client: int, sock: socket.socket) -> None:
        """Take note that a channel is closed."""
        if self._channels.get(client) is sock:
            del self._channels[client], self._rests[client]
            self._book.channel_closed(client)
        for segment, waiting in list(self.asked.items()):
            self.asked[segment] = [each for each in waiting if each is not sock]

    def read(self, client: int, sock: socket.socket) -> bool:
        """Do what a client asks on its channel; False where that has ended.

        Raises:
            ProtocolError: it broke the protocol.
        """
        while self._channels.get(client) is sock:
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
        return False  # it has opened another one

    @staticmethod
    def _answer(sock: socket.socket, frame: bytes, fds: list[int]) -> None:
        try:
            socket.send_fds(sock, [frame], fds)
        except BlockingIOError as e:
            raise ProtocolError(summary="it asks and asks, and hears no answer") from e

    def _obey(self, client: int, sock: socket.socket, data: bytes, fds: list[int]) -> None:
        offset = 0
        while len(data) - offset >= HEADER_SIZE:
            length, op, _, _, _, _, segment = HEADER.unpack_from(data, offset)
            if length != HEADER_SIZE:
                raise ProtocolError(summary=f"a frame of {length:,} bytes on a channel")
            if op == Op.OFFER:
                taken = bool(fds) and self._take(client, segment, fds.pop(0))
                self._answer(sock, pack(Op.OFFER, id=segment, n=taken), [])
                for waiting in self.asked.pop(segment, ()):
                    self._give_late(segment, waiting)
            elif op == Op.WANT:
                self._give(client, segment, sock)
            else:
                raise ProtocolError(summary=f"a frame of kind {op} on a channel")
            offset += length
        self._rests[client] = data[offset:]

    def _take(self, client: int, segment: int, fd: int) -> bool:
        """Take a segment; False where the client has too many."""
        from rustic_ai.core.messaging.backend.embedded_backend.shared.seals import sealed_size

        try:
            if sealed_size(fd) is None:
                raise ProtocolError(summary=f"segment {segment:x} is a file that could shrink")
            if not self._book.has_room(client, segment):
                return False
            if self._book.offered(client, segment):
                self._fds[segment], fd = fd, -1
            return True
        finally:
            if fd >= 0:
                os.close(fd)

    def _give(self, client: int, segment: int, sock: socket.socket) -> None:
        if self._book.read_by(client, segment):
            self._answer(sock, pack(Op.WANT, id=segment, n=1), [self._fds[segment]])
        elif self._book.may_come(segment):
            self.asked.setdefault(segment, []).append(sock)
        else:
            self._answer(sock, pack(Op.WANT, id=segment), [])

    def _give_late(self, segment: int, sock: socket.socket) -> None:
        """Answer who has waited; what goes wrong is seen when its channel is read."""
        client = next((c for c, channel in self._channels.items() if channel is sock), None)
        if client is not None:
            with contextlib.suppress(OSError, ProtocolError):
                self._give(client, segment, sock)

    def give_up_waiting(self) -> None:
        """Answer those who wait for segments whose owners have not come back."""
        for segment in [each for each in self.asked if not self._book.may_come(each)]:
            for sock in self.asked.pop(segment):
                self._give_late(segment, sock)

    def _close(self, segment: int) -> None:
        os.close(self._fds.pop(segment))

    def close_all(self) -> None:
        """Close all descriptors."""
        for fd in self._fds.values():
            with contextlib.suppress(OSError):
                os.close(fd)
        self._fds.clear()


def ring_from(sock: socket.socket) -> RingReader | None:
    """Return the ring that a client gives away on a connection; None where it has ended.

    Raises:
        BlockingIOError: nothing has come.
        ProtocolError: it gives something else.
        OSError: the connection is lost, or there is no memory.
    """
    from rustic_ai.core.messaging.backend.embedded_backend.shared.ring import RingReader

    data, fds, _, _ = socket.recv_fds(sock, HEADER_SIZE, 1, socket.MSG_CMSG_CLOEXEC)
    try:
        if not data:
            return None
        if data != pack(Op.RING) or not fds or not RingReader.fits(fds[0]):
            raise ProtocolError(summary="what should bring a ring brings something else")
        return RingReader(fds[0])
    finally:
        for fd in fds:
            os.close(fd)
