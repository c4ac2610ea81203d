"""The settings of the backend, checked."""

from __future__ import annotations

import re
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args
from urllib.parse import SplitResult, urlsplit

from rustic_ai.core.errors import MessagingConfigError

Storage = Literal["file", "memory"]
"""Where the server keeps messages."""

INSTALL = "pip install 'rustic-multiprocess[nats]'"
DEFAULT_PORT = 4222
_SCHEMES = ("nats", "tls")
_STREAM = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True, slots=True)
class Tls:
    """How the connection is encrypted; files are paths of PEM files."""

    wanted: bool = False
    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    hostname: str | None = None

    def context(self) -> ssl.SSLContext | None:
        """Return what encrypts; None: nothing was said, and the server may not ask for it.

        Raises:
            MessagingConfigError: a file is missing, or not what it should be.
        """
        if not self.wanted:
            return None
        try:
            context = ssl.create_default_context(cafile=self.ca)
        except (OSError, ssl.SSLError) as e:
            raise _wrong("tls_ca", f"{self.ca!r} is no file of certificates: {e}") from e
        if self.cert is not None:
            try:
                context.load_cert_chain(self.cert, self.key)
            except (OSError, ssl.SSLError) as e:
                told = f"{self.cert!r} and tls_key {self.key!r} are no certificate and its key: {e}"
                raise _wrong("tls_cert", told) from e
        return context


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much the stream keeps; None: as the stream has it, or the default of a new one."""

    max_messages: int | None = None
    max_bytes: int | None = None
    max_age: float | None = None


NEW_BOUNDS = {
    "file": Bounds(max_messages=1_000_000, max_bytes=1 << 30, max_age=24 * 3600.0),
    "memory": Bounds(max_messages=1_000_000, max_bytes=1 << 28, max_age=24 * 3600.0),
}
"""Of a stream that nobody said anything else about; the server sets the bytes aside for it."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Where the server is, who we are, and what its stream is like."""

    servers: tuple[str, ...]
    user: str | None
    password: str | None
    token: str | None
    credentials: str | None
    tls: Tls
    stream: str
    storage: Storage
    replicas: int
    bounds: Bounds
    reconnect_timeout: float

    @property
    def address(self) -> str:
        """Servers without passwords, for errors."""
        return ", ".join(_without_password(urlsplit(url)) for url in self.servers)

    @property
    def identity(self) -> str:
        """Which settings say who we are, for errors."""
        if self.credentials is not None:
            return f"setting 'credentials' ({self.credentials})"
        if self.user is not None:
            return f"settings 'user' ({self.user!r}) and 'password'"
        if self.token is not None:
            return "setting 'token'"
        if any(urlsplit(url).username for url in self.servers):
            return "user, password or token in setting 'servers'"
        return ""


def checked(
    *,
    servers: str | Sequence[str] | None,
    host: str | None,
    port: int | None,
    user: str | None,
    password: str | None,
    token: str | None,
    credentials: str | Path | None,
    tls: Tls,
    stream: str,
    storage: Storage,
    replicas: int,
    bounds: Bounds,
    reconnect_timeout: float,
) -> Settings:
    """Check settings and put them together.

    Raises:
        MessagingConfigError: one is wrong; the text names it.
    """
    urls = _servers(servers, host, port)
    if any(url.startswith("tls:") for url in urls) and not tls.wanted:
        tls = Tls(wanted=True, ca=tls.ca, cert=tls.cert, key=tls.key, hostname=tls.hostname)
    _check_identity(user, password, token, credentials)
    if not isinstance(stream, str) or not _STREAM.fullmatch(stream):
        raise _wrong("stream", f"{stream!r} is not 1 to 64 letters, digits, '-' or '_'")
    if storage not in get_args(Storage):
        raise _wrong("storage", f"{storage!r} is not 'file' or 'memory'")
    _check_number("replicas", replicas, 1, 5, int)
    for name in ("max_messages", "max_bytes"):
        _check_number(name, getattr(bounds, name), 1, 1 << 62, int, optional=True)
    _check_number("max_age", bounds.max_age, 1, 1e9, float, optional=True)
    _check_number("reconnect_timeout", reconnect_timeout, 0, 3600, float)
    return Settings(
        urls,
        user,
        password,
        token,
        str(credentials) if credentials is not None else None,
        tls,
        stream,
        storage,
        replicas,
        bounds,
        float(reconnect_timeout),
    )


def _servers(
    servers: str | Sequence[str] | None, host: str | None, port: int | None
) -> tuple[str, ...]:
    if servers is not None and (host is not None or port is not None):
        raise _wrong("servers", "is given beside 'host' or 'port': one of them says where it is")
    if servers is None:
        port = DEFAULT_PORT if port is None else port
        _check_number("port", port, 1, 65535, int)
        host = "localhost" if host is None else host
        if not isinstance(host, str) or not host or set(host) & set("/@ "):
            raise _wrong("host", f"{host!r} is not the name or address of a host")
        return (f"nats://[{host}]:{port}" if ":" in host else f"nats://{host}:{port}",)
    if isinstance(servers, str):
        servers = [servers]
    if not isinstance(servers, list | tuple) or not servers:
        raise _wrong(
            "servers", f"{servers!r} is not a URL such as nats://localhost:4222, or a list"
        )
    return tuple(map(_checked_url, servers))


def _checked_url(url: object) -> str:
    if not isinstance(url, str):
        raise _wrong("servers", f"{url!r} is not a URL such as nats://localhost:4222")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as e:
        raise _wrong("servers", f"a URL cannot be read: {e}") from e
    shown = _without_password(parts)
    if parts.scheme not in _SCHEMES or "://" not in url:
        known = " or ".join(f"{scheme}://" for scheme in _SCHEMES)
        raise _wrong("servers", f"{shown!r} does not begin with {known}")
    if not parts.hostname or parts.path.strip("/") or parts.query or parts.fragment:
        raise _wrong("servers", f"{shown!r} is not a host and a port")
    return url.rstrip("/") if port is not None else f"{url.rstrip('/')}:{DEFAULT_PORT}"


def _without_password(url: SplitResult) -> str:
    return url._replace(netloc=url.netloc.rpartition("@")[2]).geturl()


def _check_identity(
    user: str | None, password: str | None, token: str | None, credentials: str | Path | None
) -> None:
    given = {"user": user, "password": password, "token": token}
    for name, value in given.items():
        if value is not None and (not isinstance(value, str) or not value):
            raise _wrong(name, "is not a text, or an empty one")
    if (user is None) != (password is None):
        raise _wrong("user" if user is None else "password", "is missing: give both, or neither")
    ways = [user, token, credentials]
    if len([way for way in ways if way is not None]) > 1:
        raise _wrong("token", "or 'user' or 'credentials' is one too many: give one of them")
    if credentials is not None and not Path(credentials).is_file():
        raise _wrong("credentials", f"{str(credentials)!r} is not a file")


def _check_number(
    name: str, value: Any, least: float, most: float, kind: type, *, optional: bool = False
) -> None:
    if value is None and optional:
        return
    allowed = int if kind is int else (int, float)
    if isinstance(value, bool) or not isinstance(value, allowed) or not least <= value <= most:
        what = "a whole number" if kind is int else "a number"
        raise _wrong(name, f"{value!r} is not {what} from {least:,} to {most:,}")


def _wrong(name: str, what: str) -> MessagingConfigError:
    return MessagingConfigError(summary=f"setting {name!r} of the NATS backend: {what}")
