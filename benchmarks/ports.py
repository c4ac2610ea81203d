"""Ports of servers that benchmarks start."""

from __future__ import annotations

import socket
import time

_DEADLINE = 10.0
_PAUSE = 0.01


def await_listener(port: int) -> None:
    """Wait until somebody listens on a port of this machine.

    Raises:
        OSError: nobody did within ten seconds.
    """
    deadline = time.monotonic() + _DEADLINE
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(_PAUSE)  # a port that is not open yet gives nothing to wait on
        else:
            return
