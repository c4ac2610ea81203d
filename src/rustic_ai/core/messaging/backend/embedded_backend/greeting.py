"""How a server gets to know a client: magic, version, and where needed a proof. Without any I/O."""

from __future__ import annotations

import struct
from collections.abc import Callable

from rustic_ai.core.errors import ProtocolError
from rustic_ai.core.messaging.backend.embedded_backend.access import (
    NONCE_SIZE,
    matches,
    new_nonce,
    proof,
)
from rustic_ai.core.messaging.backend.embedded_backend.protocol import (
    MAGIC,
    VERSION,
    Frame,
    Op,
    pack,
)
from rustic_ai.core.messaging.backend.embedded_backend.session import Session

CLIENT = struct.Struct("<Q")


class Greeter:
    """Hears the first frames of sessions.

    Args:
        token: what clients have to know whose socket proves nothing; None: nothing.
        send: puts a frame into a session's output.
    """

    def __init__(self, token: bytes | None, send: Callable[[Session, bytes], None]) -> None:
        self._token = token
        self._send = send

    def hear(self, session: Session, frame: Frame) -> int | None:
        """Take a frame; returns the number of the client once it may come in.

        Raises:
            ProtocolError: it may not.
        """
        if session.nonces is not None:
            return self._check_proof(session, frame)
        if frame.op != Op.HELLO or frame.id != MAGIC:
            raise ProtocolError(summary="the first frame is not the greeting of a client")
        if frame.n != VERSION:
            raise ProtocolError(
                summary=f"the client speaks version {frame.n} of the protocol, the server {VERSION}"
            )
        if len(frame.body) != CLIENT.size + NONCE_SIZE:
            raise ProtocolError(summary="a greeting without client and nonce")
        (session.client,) = CLIENT.unpack_from(frame.body)
        if session.trusted or self._token is None:
            return session.client
        nonces = session.nonces = frame.body[CLIENT.size :], new_nonce()
        ours = proof(self._token, "server", *nonces)
        self._send(session, pack(Op.CHALLENGE, nonces[1] + ours))
        return None

    def _check_proof(self, session: Session, frame: Frame) -> int:
        assert self._token is not None
        assert session.nonces is not None
        expected = proof(self._token, "client", *session.nonces)
        session.nonces = None
        if frame.op != Op.PROOF or not matches(frame.body, expected):
            raise ProtocolError(summary="the client does not know the token of this server")
        return session.client
