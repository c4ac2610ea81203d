"""TCP ports for tests: none is given twice, however many test processes run on this machine."""

from __future__ import annotations

import functools
import itertools
import socket

_FIRST, _END, _SIZE = 20_000, 31_000, 500
"""Below what Linux gives to outgoing connections, above what Ray gives to its workers."""


class Ports:
    """A block of ports that is this process's alone.

    A port that the kernel chooses may be anybody's between the choice and its use. So a process
    holds the first port of a block as long as it lives, and takes the others one after another.
    """

    def __init__(self) -> None:
        self._lease, first = _lease()
        self._rest = itertools.cycle(range(first + 1, first + _SIZE))

    def take(self) -> int:
        """Return a port that nobody listens on."""
        for port in itertools.islice(self._rest, _SIZE - 1):
            bound = _bound(port)
            if bound is not None:
                bound.close()
                return port
        raise AssertionError("every port of this process is in use")


@functools.cache
def ports() -> Ports:
    """Return the block of this process, which it keeps for good."""
    return Ports()


def free_tcp_port() -> int:
    """Return a port that nobody listens on, and that no other test process will use."""
    return ports().take()


def _lease() -> tuple[socket.socket, int]:
    for first in range(_FIRST, _END, _SIZE):
        bound = _bound(first)
        if bound is not None:
            return bound, first
    raise AssertionError(f"all blocks of ports from {_FIRST} to {_END} are taken")


def _bound(port: int) -> socket.socket | None:
    """Return a socket that holds the port; None where another does."""
    sock = socket.socket()
    try:
        sock.bind(("127.0.0.1", port))
    except OSError:
        sock.close()
        return None
    return sock
