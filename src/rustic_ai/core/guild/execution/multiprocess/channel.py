"""What an engine and an agent's process say to each other, over one socket pair.

Frames are a 4-byte little-endian length and a MessagePack body. End of file means that the other
side is gone.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading

import msgspec

_LENGTH = struct.Struct("<I")
_MAX_FRAME = 16 << 20
_RECEIVE = 1 << 16


class Ready(msgspec.Struct, frozen=True, tag=True):
    """Child: the agent is built, subscribed and started."""


class Failed(msgspec.Struct, frozen=True, tag=True):
    """Child: the agent did not start, or cannot go on; `exception` is pickled where it can be."""

    error_type: str
    text: str
    traceback: str
    exception: bytes | None = None


class Stop(msgspec.Struct, frozen=True, tag=True):
    """Engine: finish the message in hand and end."""


class Retiring(msgspec.Struct, frozen=True, tag=True):
    """Child: it reached a limit of its service and ends; a fresh process is to take over."""

    reason: str


ControlMessage = Ready | Failed | Retiring | Stop
encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(ControlMessage).decode


class Channel:
    """One end of the socket pair. `send` is safe from any thread; one thread receives."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._buffer = bytearray()
        self._lock = threading.Lock()

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self._socket.fileno()

    def send(self, message: ControlMessage) -> None:
        """Send; a side that is gone hears nothing, and its end of file says so."""
        body = encode(message)
        with self._lock, contextlib.suppress(OSError):
            self._socket.sendall(_LENGTH.pack(len(body)) + body)

    def receive(self) -> list[ControlMessage] | None:
        """Wait for bytes and return the messages that are complete; None at end of file."""
        try:
            data = self._socket.recv(_RECEIVE)
        except OSError:
            return None
        return self._take(data) if data else None

    def drain(self) -> tuple[list[ControlMessage], bool]:
        """Take what is there, on a non-blocking socket; the second says whether it has ended."""
        found: list[ControlMessage] = []
        while True:
            try:
                data = self._socket.recv(_RECEIVE)
            except BlockingIOError:
                return found, False
            except OSError:
                return found, True
            more = self._take(data) if data else None
            if more is None:
                return found, True
            found += more

    def _take(self, data: bytes) -> list[ControlMessage] | None:
        self._buffer += data
        found: list[ControlMessage] = []
        while len(self._buffer) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer)
            if length > _MAX_FRAME:
                return None
            end = _LENGTH.size + length
            if len(self._buffer) < end:
                break
            found.append(decode(bytes(self._buffer[_LENGTH.size : end])))
            del self._buffer[:end]
        return found

    def close_in_fork(self) -> None:
        """Close it in a forked copy of the program, whose end would not be ours otherwise."""
        self._socket.close()

    def close(self) -> None:
        """Give the socket back."""
        self._socket.close()
