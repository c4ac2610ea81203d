"""Reaching a server: the Unix socket first, TCP with a token otherwise, and the greeting."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from rustic_ai.core.errors import (
    AccessError,
    BackendUnavailableError,
    PortTakenError,
    ProtocolError,
)
from rustic_ai.core.messaging.backend.embedded_backend.access import (
    NONCE_SIZE,
    find_server,
    is_same_user,
    matches,
    new_nonce,
    proof,
)
from rustic_ai.core.messaging.backend.embedded_backend.protocol import (
    MAGIC,
    VERSION,
    WELCOME,
    Frame,
    FrameReader,
    Op,
    pack,
)

GREETING_DEADLINE = 2.0
"""Seconds in which a server must answer the greeting."""
CONNECT_DEADLINE = 5.0
"""Seconds in which a server that is being started must listen."""
SEND_DEADLINE = 30
"""Seconds after which a server that takes nothing counts as gone."""
LOOPBACK = ("localhost", "127.0.0.1", "::1")
_NUMBER = struct.Struct("<Q")
_LARGEST_ANSWER = 1 << 31
_RECEIVE = 256 << 10
_BUFFERS = 1 << 20

Transport = Literal["auto", "unix", "tcp"]


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server is; `token` only where it cannot be found in this user's files."""

    host: str
    port: int
    transport: Transport = "auto"
    token: bytes | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(slots=True)
class Link:
    """An open connection to a server that has greeted us.

    `units` is how many of this client's units it has stored; `early` what it sent behind the
    greeting.
    """

    socket: socket.socket
    reader: FrameReader
    max_frame: int
    epoch: int
    units: int
    early: list[Frame]
    path: str
    """How it was reached: 'unix' or 'tcp'."""
    max_payload: int = 0
    life: int = 0
    """That of the server's process; `epoch` is that of what it has stored."""

    def receive(self, timeout: float) -> list[Frame]:
        """Wait for frames.

        Raises:
            OSError: it is gone, or silent for too long.
        """
        if self.early:
            early, self.early = self.early, []
            return early
        if not readable(self.socket, timeout):
            raise TimeoutError("it does not answer")
        data = self.socket.recv(_RECEIVE)
        if not data:
            raise ConnectionResetError("it closed the connection")
        return self.reader.feed(data)


def readable(sock: socket.socket, timeout: float) -> bool:
    """Wait for bytes."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(max(0.0, timeout) * 1000))


def dial(address: Address, client: int) -> Link:
    """Connect, and greet.

    Raises:
        BackendUnavailableError: nobody listens.
        PortTakenError: whoever listens is not our server.
        AccessError: it asks for a token that we do not know, or does not know it itself.
    """
    link = _dial_locally(address, client)
    if link is not None:
        return link
    if address.transport == "unix":
        raise BackendUnavailableError(
            address=str(address), reason="no server of this user has a Unix socket there"
        )
    host = "127.0.0.1" if address.host == "localhost" else address.host
    try:
        sock = socket.create_connection((host, address.port), timeout=GREETING_DEADLINE)
    except OSError as e:
        raise BackendUnavailableError(address=str(address), reason=str(e)) from e
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    try:
        link = _greet(address, sock, client, "tcp")
    except OSError as e:
        if isinstance(e, PortTakenError | BackendUnavailableError):
            raise
        raise BackendUnavailableError(address=str(address), reason=str(e)) from e
    # A server that was just starting has its Unix socket by the time it answers.
    better = _dial_locally(address, client)
    if better is not None:
        link.socket.close()
    return better or link


def _dial_locally(address: Address, client: int) -> Link | None:
    """Connect over the Unix socket; None where there is none, or it is a dead server's."""
    if address.transport == "tcp" or address.host not in LOOPBACK:
        return None
    found = find_server(address.port)
    if found is not None and found.socket_path is not None:
        with contextlib.suppress(OSError):
            return _greet(address, _connect_unix(str(found.socket_path)), client, "unix")
    return None


def dial_channel(address: Address) -> socket.socket:
    """Connect to the Unix socket of a server, for descriptors.

    Raises:
        BackendUnavailableError: it has none, or is gone.
    """
    found = find_server(address.port)
    if found is not None and found.socket_path is not None:
        with contextlib.suppress(OSError):
            return _connect_unix(str(found.socket_path))
    raise BackendUnavailableError(
        address=str(address), reason="no server of this user has a Unix socket there"
    )


def dial_patiently(address: Address, client: int, patience: float = CONNECT_DEADLINE) -> Link:
    """Connect to a server that may just be starting; errors as in `dial`."""
    deadline = time.monotonic() + patience
    pause = 0.005
    while True:
        try:
            return dial(address, client)
        except BackendUnavailableError:
            if time.monotonic() + pause > deadline:
                raise
        time.sleep(pause)  # a port that is not open yet gives nothing to wait on
        pause = min(pause * 2, 0.2)


def _connect_unix(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with _closed_on_error(sock):
        sock.settimeout(GREETING_DEADLINE)
        sock.connect(path)
        _require_same_user(sock, path)
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            sock.setsockopt(socket.SOL_SOCKET, option, _BUFFERS)
    return sock


@contextlib.contextmanager
def _closed_on_error(sock: socket.socket) -> Iterator[None]:
    try:
        yield
    except BaseException:
        sock.close()
        raise


def _require_same_user(sock: socket.socket, path: str) -> None:
    if not is_same_user(sock):
        raise AccessError(summary=f"the server behind {path} is another user's", path=path)


def _greet(address: Address, sock: socket.socket, client: int, path: str) -> Link:
    with _closed_on_error(sock):
        # Without a timeout of Python's, which would cost a system call more each time.
        sock.settimeout(None)
        seconds = struct.pack("@ll", SEND_DEADLINE, 0)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, seconds)
        link = Link(sock, FrameReader(_LARGEST_ANSWER), 0, 0, 0, [], path)
        nonce = new_nonce()
        sock.sendall(pack(Op.HELLO, _NUMBER.pack(client) + nonce, id=MAGIC, n=VERSION))
        deadline = time.monotonic() + GREETING_DEADLINE
        hello = _next(address, link, deadline)
        if hello.op == Op.CHALLENGE:
            sock.sendall(_answer(address, hello, nonce))
            hello = _next(address, link, deadline)
        _require_welcome(address, hello)
        link.max_frame, link.units = hello.n, hello.id
        link.epoch, link.max_payload, link.life = WELCOME.unpack(hello.body)
    return link


def _require_welcome(address: Address, hello: Frame) -> None:
    if hello.op == Op.ERROR:
        raise AccessError(summary=f"{address} refused: {hello.body.decode(errors='replace')}")
    if hello.op != Op.HELLO or len(hello.body) != WELCOME.size:
        raise PortTakenError(address=str(address))


def _next(address: Address, link: Link, deadline: float) -> Frame:
    try:
        while not (frames := link.receive(deadline - time.monotonic())):
            pass
    except (ProtocolError, TimeoutError) as e:  # it listens, and does not know our greeting
        raise PortTakenError(address=str(address)) from e
    link.early = frames[1:]
    return frames[0]


def _answer(address: Address, challenge: Frame, nonce: bytes) -> bytes:
    token = address.token
    if token is None and address.host in LOOPBACK:
        found = find_server(address.port)  # only now: a server that just starts has put it there
        token = found.token if found is not None else None
    if token is None:
        raise AccessError(
            summary=f"the server at {address} asks for a token, and none of this user's files has "
            "one for that port",
            hint="give it as backend_config['token'], from the server's token file",
        )
    theirs, shown = challenge.body[:NONCE_SIZE], challenge.body[NONCE_SIZE:]
    if len(theirs) != NONCE_SIZE or not matches(shown, proof(token, "server", nonce, theirs)):
        raise AccessError(
            summary=f"whoever listens at {address} does not know the token of the server there"
        )
    return pack(Op.PROOF, proof(token, "client", nonce, theirs))
