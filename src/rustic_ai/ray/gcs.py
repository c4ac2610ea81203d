"""Whether a Ray cluster can be reached: asked before Ray is, which takes minutes to say no."""

from __future__ import annotations

import os
import socket
import time

from rustic_ai.ray.errors import RayUnavailableError

CONNECT_DEADLINE = 3.0
"""Seconds in which the head of a cluster must answer."""
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
"""How a client of gRPC begins (RFC 9113, 3.4), with an empty SETTINGS frame."""
_HEADER = 9
_SETTINGS = 4
_HINT = "start one (ray start --head), or give the engine the address of one that runs"


def require_head(address: str) -> None:
    """Knock at the head of a cluster.

    Args:
        address: HOST:PORT of its global control store (GCS).

    Raises:
        RayUnavailableError: nobody answers there, or nobody who speaks gRPC.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise RayUnavailableError(
            address=address, reason="an address is HOST:PORT, 'auto' or 'local'", hint=_HINT
        )
    deadline = time.monotonic() + CONNECT_DEADLINE
    try:
        with socket.create_connection((host.strip("[]"), int(port)), CONNECT_DEADLINE) as sock:
            if os.environ.get("RAY_USE_TLS", "0") == "0" and not _speaks_grpc(sock, deadline):
                raise RayUnavailableError(
                    address=address, reason="who listens there is no head of a cluster", hint=_HINT
                )
    except OSError as e:
        if isinstance(e, RayUnavailableError):
            raise
        raise RayUnavailableError(address=address, reason=str(e), hint=_HINT) from e


def _speaks_grpc(sock: socket.socket, deadline: float) -> bool:
    sock.sendall(_PREFACE)
    answer = b""
    while len(answer) < _HEADER:
        sock.settimeout(max(0.001, deadline - time.monotonic()))
        data = sock.recv(_HEADER - len(answer))
        if not data:
            return False
        answer += data
    return answer[3] == _SETTINGS
