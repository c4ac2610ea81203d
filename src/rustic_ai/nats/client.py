"""One connection of nats-py, and in our words what goes wrong when it is made."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Callable
from typing import Any

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from rustic_ai.core.errors import AccessError, BackendUnavailableError, MessagingError
from rustic_ai.nats.settings import Settings

logger = logging.getLogger(__name__)

CONNECT_DEADLINE = 4.0
"""Seconds in which a connection is there, or is not to be had."""
_CLOSE_DEADLINE = 2.0
_ABORT_DEADLINE = 0.2
"""Seconds for one that has never been: a failed TLS handshake does not end by itself."""
_PING_SECONDS = 5
_ROOM = 1 << 30
"""Bytes that nats-py may hold back; who publishes waits for acknowledgements, never here."""


class NatsClient(Client):
    """A connection that is never made again: what follows is another object.

    So nothing that it still held back can come in front of what is sent once more.
    """

    def __init__(self) -> None:
        super().__init__()
        self.encrypted = False
        """Whether it may only be encrypted."""
        self.ended = asyncio.Event()
        """Set when it has ended, whoever ended it."""
        self.at_end: Callable[[], None] = lambda: None
        """Called then."""
        self._ending: asyncio.Task[None] | None = None

    async def _close(self, status: int, do_cbs: bool = True) -> None:  # noqa: FBT001, FBT002
        if not self.ended.is_set():
            self.ended.set()
            self.at_end()
        # As a task of its own: some versions of nats-py cancel whatever task they are in here.
        self._ending = asyncio.ensure_future(self._close_now(status, do_cbs))
        await asyncio.shield(self._ending)

    async def _close_now(self, status: int, do_cbs: bool) -> None:  # noqa: FBT001
        self._pending.clear()
        self._pending_data_size = 0
        try:
            await super()._close(status, do_cbs)
        except OSError:
            logger.debug("a connection to NATS was not closed in order", exc_info=True)
            if self._transport is not None:
                self._transport.close()  # type: ignore[no-untyped-call]

    def _connect_command(self) -> bytes:
        # The last moment before who we are goes out.
        if self.encrypted and not self._server_info.get("tls_required"):
            raise nats.errors.Error("the server does not ask for TLS")
        return super()._connect_command()

    @property
    def asks_for_client_certificate(self) -> bool:
        """Whether the server said so."""
        return bool(self._server_info.get("tls_verify"))

    async def end(self, deadline: float = _CLOSE_DEADLINE) -> None:
        """Send what is there to be sent, and close, in so many seconds; raises nothing."""
        try:
            async with asyncio.timeout(deadline):
                if self.is_connected:
                    with contextlib.suppress(nats.errors.Error):
                        await self.flush(1)
                await self.close()
        except (OSError, TimeoutError, AttributeError, nats.errors.Error):
            # An attribute is missing in older nats-py where there never was a connection.
            logger.debug("a connection to NATS was not closed in order", exc_info=True)
            if self._ending is not None:
                self._ending.cancel()


async def dial(settings: Settings, discovered: list[str]) -> NatsClient:
    """Connect.

    Args:
        settings: where to, and who we are.
        discovered: more servers of the same cluster.

    Raises:
        BackendUnavailableError: nobody is there, or it is not NATS.
        AccessError: it does not let us in.
        MessagingConfigError: a file of the settings is wrong.
    """
    client, seen = NatsClient(), list[Exception]()
    client.encrypted = settings.tls.wanted

    async def note(error: Exception) -> None:
        seen.append(error)
        del seen[:-8]
        if isinstance(error, OSError | TimeoutError | nats.errors.Error):
            logger.debug("NATS: %s", error)
        else:
            logger.error("what came from NATS could not be taken", exc_info=error)

    try:
        async with asyncio.timeout(CONNECT_DEADLINE):
            await client.connect(
                [*settings.servers, *discovered],
                error_cb=note,
                name="rustic",
                **_options(settings),
            )
    except (OSError, TimeoutError, nats.errors.Error, ssl.SSLError) as error:
        told = seen[-1] if seen and isinstance(error, nats.errors.NoServersError) else error
        await client.end(_ABORT_DEADLINE)
        raise explained(told, settings, client) from error
    except BaseException:
        await client.end(_ABORT_DEADLINE)
        raise
    return client


def _options(settings: Settings) -> dict[str, Any]:
    return {
        "allow_reconnect": False,
        "connect_timeout": 2,
        "max_reconnect_attempts": 1,
        "reconnect_time_wait": 0,
        "ping_interval": _PING_SECONDS,
        "tls": settings.tls.context(),
        "tls_hostname": settings.tls.hostname,
        "user": settings.user,
        "password": settings.password,
        "token": settings.token,
        "user_credentials": settings.credentials,
        "pending_size": _ROOM,
    }


def explained(error: Exception, settings: Settings, client: NatsClient) -> MessagingError:
    """Say in our words why no connection was made."""
    address, text = settings.address, str(error) or type(error).__name__
    if "authoriz" in text.lower() or "authentic" in text.lower():
        return _refused(address, settings.identity)
    if isinstance(error, ssl.SSLCertVerificationError):
        return BackendUnavailableError(
            address=address,
            reason=f"its TLS certificate was refused: {error.verify_message}",
            hint="name the file of its authority with setting 'tls_ca', and the name in its "
            "certificate with 'tls_hostname'",
        )
    if "does not ask for TLS" in text:
        return BackendUnavailableError(
            address=address,
            reason=f"TLS was refused: {text}",
            hint="leave setting 'tls' (or tls:// in 'servers') out, or start the server with TLS",
        )
    if client.asks_for_client_certificate and settings.tls.cert is None:
        return BackendUnavailableError(
            address=address,
            reason=f"TLS was refused: the server wants a certificate of its clients ({text})",
            hint="give one with settings 'tls_cert' and 'tls_key'",
        )
    if isinstance(error, ssl.SSLError):
        return BackendUnavailableError(
            address=address,
            reason=f"TLS was refused: {text}",
            hint="look at settings 'tls_ca', 'tls_cert' and 'tls_key'",
        )
    return BackendUnavailableError(
        address=address, reason=_reason(error, text), hint="start a NATS server, or set 'servers'"
    )


def _reason(error: Exception, text: str) -> str:
    match error:
        case ConnectionRefusedError():
            return "nobody listens there"
        case socket.gaierror():
            return f"the host is not known ({error.strerror})"
        case TimeoutError():
            return f"it did not answer within {CONNECT_DEADLINE:g} s"
        case _:
            return text.removeprefix("nats: ")


def _refused(address: str, identity: str) -> AccessError:
    if not identity:
        return AccessError(
            summary=f"the NATS server at {address} wants to know who we are",
            hint="give settings 'user' and 'password', or 'token', or 'credentials'",
        )
    return AccessError(
        summary=f"the NATS server at {address} does not let us in: {identity} are not what it knows"
        if "settings" in identity
        else f"the NATS server at {address} does not let us in: {identity} is not what it knows",
        hint="look at the server's configuration",
    )


def status_of(message: Msg) -> str:
    """Return the status of a message that is a word of the server; '' for any other."""
    headers = message.headers
    return headers.get("Status", "") if headers is not None and not message.data else ""
