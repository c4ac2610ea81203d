"""One connection to a Redis server, and what its errors mean."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import Any

from rustic_ai.core.errors import (
    AccessError,
    BackendUnavailableError,
    BackPressureError,
    GuildError,
    MessagingConfigError,
    MessagingError,
)
from rustic_ai.redis.settings import RedisSettings

try:
    from redis import Connection, SSLConnection, UnixDomainSocketConnection
    from redis import exceptions as redis_errors
    from redis.backoff import NoBackoff
    from redis.retry import Retry
except ModuleNotFoundError as e:
    if e.name is None or e.name.partition(".")[0] != "redis":
        raise
    raise MessagingConfigError(
        summary="messages through Redis need the package 'redis', which is not installed",
        hint="pip install 'rustic-multiprocess[redis]'",
    ) from e

__all__ = ["FAILURES", "Link", "is_no_group", "is_passing", "meaning_of", "redis_errors"]

FAILURES = (redis_errors.RedisError, OSError)
"""What a `Link` raises. Some of our own errors are of these kinds, too: see to them first."""
_PASSING = (
    redis_errors.ConnectionError,
    redis_errors.TimeoutError,
    redis_errors.ReadOnlyError,
    redis_errors.MasterDownError,
    redis_errors.ClusterDownError,
    redis_errors.TryAgainError,
    redis_errors.OutOfMemoryError,
    redis_errors.InvalidResponse,
    OSError,
)
_PASSING_CODES = ("UNBLOCKED", "NOREPLICAS", "MISCONF", "BUSY ")
"""How the replies begin of a server that is changing its role, or short of something."""
_ENDS_OF_GREETINGS = ("closed by server", "reset by peer")
_REFUSALS = (
    redis_errors.AuthenticationError,
    redis_errors.AuthorizationError,
    redis_errors.NoPermissionError,
)


class Link:
    """A connection that has greeted the server. Any error but a plain refusal ends it.

    Args:
        settings: where the server is.
        name: of the connection, shown by the server.
        connect_within: seconds until it must stand.
        answer_within: seconds until a command must be answered.
    """

    def __init__(
        self, settings: RedisSettings, name: str, *, connect_within: float, answer_within: float
    ) -> None:
        self.was_shut = False
        """Whether `shut` was called."""
        self._connection = _connection(settings, name, connect_within)
        self._connection.connect()
        self._socket: socket.socket = self._connection._sock  # noqa: SLF001 - for `shut`
        self._socket.settimeout(answer_within)

    def call(self, *words: Any) -> Any:
        """Have a command done, and return its reply."""
        connection = self._connection
        connection.send_command(*words)
        return connection.read_response()

    def calls(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """Have several commands done in one round trip; the first error is raised after all."""
        connection = self._connection
        connection.send_packed_command(connection.pack_commands(commands))
        replies: list[Any] = []
        error: Exception | None = None
        for _ in commands:
            try:
                replies.append(connection.read_response())
            except redis_errors.ResponseError as e:
                error = error or e
        if error is not None:
            raise error
        return replies

    def shut(self) -> None:
        """Have a thread that waits for a reply on this link get an error; from any thread."""
        self.was_shut = True
        with contextlib.suppress(OSError):  # it is closed already
            # Not TLS's own: that one takes the state away under the reading thread.
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection; idempotent."""
        self._connection.disconnect()


def _connection(settings: RedisSettings, name: str, within: float) -> Any:
    common: dict[str, Any] = {
        "db": settings.db,
        "username": settings.username,
        "password": settings.password,
        "client_name": name,
        "socket_timeout": within,
        "socket_connect_timeout": within,
        "socket_read_size": 256 << 10,
        "protocol": 2,
        "retry": Retry(NoBackoff(), 0),  # trying again is done here, where it is known what is safe
    }
    if settings.path:
        return _make(UnixDomainSocketConnection, path=settings.path, **common)
    common |= {"host": settings.host, "port": settings.port, "socket_keepalive": True}
    if not settings.ssl:
        return _make(Connection, **common)
    return _make(
        SSLConnection,
        ssl_ca_certs=settings.ssl_ca_certs,
        ssl_certfile=settings.ssl_certfile,
        ssl_keyfile=settings.ssl_keyfile,
        ssl_check_hostname=settings.ssl_check_hostname,
        **common,
    )


def _make(kind: Callable[..., Any], **settings: Any) -> Any:
    return kind(**settings)  # redis-py declares these classes abstract, and their arguments not


def is_passing(error: BaseException) -> bool:
    """Say whether the same may go well in a while, on another connection."""
    if isinstance(error, (GuildError, *_REFUSALS)) or _tls_refusal(error) is not None:
        return False
    return isinstance(error, _PASSING) or str(error).startswith(_PASSING_CODES)


def is_no_group(error: BaseException) -> bool:
    """Say whether a consumer group, or its stream, is not there (any more)."""
    return str(error).startswith(("NOGROUP", "UNBLOCKED"))


def meaning_of(error: BaseException, settings: RedisSettings) -> GuildError:
    """Return our error for one of a `Link`, naming server and setting."""
    where, text = f"Redis at {settings.address}", str(error)
    tls = _tls_refusal(error)
    if tls is not None:
        return _of_tls(tls, where)
    if isinstance(error, _REFUSALS):
        return _of_access(error, where, settings)
    setting = _of_setting(text, where, settings)
    if setting is not None:
        return setting
    if isinstance(error, redis_errors.OutOfMemoryError):
        return BackPressureError(
            reason=f"{where} has reached its maxmemory",
            hint="give the server more memory, or lower max_messages, max_age or max_pending",
        )
    if is_passing(error):
        reason, hint = text or repr(error), ""
        if isinstance(error, redis_errors.InvalidResponse):
            reason = f"what listens there does not speak Redis's protocol: {text}"
        elif settings.ssl and "Timeout connecting" in text:
            hint = "a server without TLS never answers the greeting: see backend_config['ssl']"
        elif not settings.ssl and any(end in text for end in _ENDS_OF_GREETINGS):
            hint = "if the server wants TLS, set backend_config['ssl'] to true"
        return BackendUnavailableError(address=settings.address, reason=reason, hint=hint)
    return MessagingError(summary=f"{where} refused a command: {text}")


def _of_access(error: BaseException, where: str, settings: RedisSettings) -> GuildError:
    if isinstance(error, redis_errors.NoPermissionError):
        return AccessError(
            summary=f"{where} does not allow this user what messaging needs: {error}",
            hint="backend_config['username'] needs all keys behind backend_config['prefix']",
        )
    name = "password" if settings.username is None else "username' or 'password"
    done = "lets nobody in without one" if settings.password is None else "refuses it"
    return AccessError(
        summary=f"backend_config['{name}']: {where} {done}: {error}",
        hint="ask who runs the server for user name and password",
    )


def _of_setting(text: str, where: str, settings: RedisSettings) -> GuildError | None:
    if "DB index" in text or "SELECT is not allowed" in text:
        return MessagingConfigError(
            summary=f"backend_config['db'] is {settings.db}, a database that {where} does not have",
            hint="a server has 16 databases where it is not configured otherwise, from 0 to 15",
        )
    if text.startswith("WRONGTYPE"):
        return MessagingConfigError(
            summary=f"{where}: keys behind backend_config['prefix'] = {settings.prefix!r} are used "
            f"by another program: {text}",
            hint="choose another prefix",
        )
    return None


def _tls_refusal(error: BaseException) -> ssl.SSLError | None:
    """Return why TLS cannot be agreed upon; None where a handshake was merely cut off."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ssl.SSLError) and not isinstance(
            seen, ssl.SSLEOFError | ssl.SSLZeroReturnError
        ):
            return seen
        seen = seen.__cause__ or seen.__context__
    return None


def _of_tls(refusal: ssl.SSLError, where: str) -> GuildError:
    if isinstance(refusal, ssl.SSLCertVerificationError):
        return AccessError(
            summary=f"the certificate of {where} is not trusted: {refusal.verify_message}",
            hint="set backend_config['ssl_ca_certs'] to the file with the certificate of the "
            "authority that signed it",
        )
    if "ALERT" in (refusal.reason or ""):
        return AccessError(
            summary=f"{where} refuses TLS with us: {refusal}",
            hint="it may want a certificate: backend_config['ssl_certfile'] and 'ssl_keyfile'",
        )
    return MessagingConfigError(
        summary=f"backend_config['ssl'] is true, and {where} does not speak TLS: {refusal}",
        hint="leave 'ssl' out, or use the server's port for TLS",
    )
