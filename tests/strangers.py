"""A client that speaks frames, and says whatever it likes."""

from __future__ import annotations

import secrets
import socket

from rustic_ai.core.messaging.backend.embedded_backend.dial import Address, dial, dial_channel
from rustic_ai.core.messaging.backend.embedded_backend.protocol import (
    HEADER,
    HEADER_SIZE,
    Op,
    pack,
)


class Stranger:
    """Has been greeted by a server, and has a second connection, for descriptors."""

    def __init__(self, port: int) -> None:
        self.number = secrets.randbits(60) | 1
        self._address = Address("localhost", port, "unix")
        self.link = dial(self._address, self.number)
        self.link.socket.settimeout(5)
        self.connect()

    def connect(self) -> None:
        """Make the second connection anew; the caller closes the one before."""
        self.channel = dial_channel(self._address)
        self.channel.settimeout(5)

    def greet(self, op: Op, number: int | None = None) -> int:
        """Say what the second connection is for; return the kind of the answer."""
        self.channel.sendall(pack(op, id=self.number if number is None else number))
        return self.hear(self.channel)

    def hear(self, sock: socket.socket) -> int:
        """Return the kind of the next answer; 0: the connection is closed."""
        try:
            data = sock.recv(HEADER_SIZE)
        except ConnectionResetError:
            return 0
        return int(HEADER.unpack(data)[1]) if data else 0

    def close(self) -> None:
        """Close both connections."""
        self.link.socket.close()
        self.channel.close()
