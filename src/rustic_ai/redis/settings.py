"""Where the server is, and what is kept there: the settings, checked."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from rustic_ai.core.errors import MessagingConfigError

_SCHEMES = ("redis", "rediss", "unix")
_DAY = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class RedisSettings:
    """Checked settings; `RedisMessagingBackend` says what they mean.

    Raises:
        MessagingConfigError: one is wrong; it says which.
    """

    host: str = "localhost"
    port: int = 6379
    db: int = 0
    path: str = ""
    """Of a Unix socket, instead of host and port."""
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    ssl: bool = False
    ssl_ca_certs: str | None = None
    ssl_certfile: str | None = None
    ssl_keyfile: str | None = None
    ssl_check_hostname: bool = True
    prefix: str = "rustic"
    reconnect_timeout: float = 30.0
    max_messages: int = 1_000_000
    max_age: float = _DAY
    max_pending: int = 100_000
    replicas: int = 0

    def __post_init__(self) -> None:
        for name in ("host", "prefix"):
            _check_text(name, getattr(self, name))
        for name in ("username", "password", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile"):
            if getattr(self, name) is not None:
                _check_text(name, getattr(self, name))
        for name in ("ssl", "ssl_check_hostname"):
            if not isinstance(getattr(self, name), bool):
                raise _wrong(name, getattr(self, name), "true or false")
        _check_number("port", self.port, 1, 65_535)
        _check_number("db", self.db, 0)
        _check_number("max_messages", self.max_messages, 1)
        _check_number("max_pending", self.max_pending, 0)
        _check_number("replicas", self.replicas, 0)
        _check_seconds("reconnect_timeout", self.reconnect_timeout, least=0)
        _check_seconds("max_age", self.max_age, least=0.001)
        self._check_tls()

    def _check_tls(self) -> None:
        for name in ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile"):
            file = getattr(self, name)
            if file is None:
                continue
            if not self.ssl:
                raise _wrong(name, file, "given only where ssl is true, or with a rediss:// URL")
            if not Path(file).is_file():
                raise _wrong(name, file, "the path of a file that exists")

    @property
    def address(self) -> str:
        """Where the server is, for errors; without the password."""
        return f"unix:{self.path}" if self.path else f"{self.host}:{self.port}"


def settings_of(url: str | None, **given: Any) -> RedisSettings:
    """Check settings that may come with a URL.

    Args:
        url: where the server is; then host, port and db must be None.
        given: the fields of `RedisSettings`; None: not given.

    Raises:
        MessagingConfigError: one is wrong; it says which.
    """
    chosen = {name: value for name, value in given.items() if value is not None}
    if url is None:
        return RedisSettings(**chosen)
    parts = _parts(url)
    found = _of_unix(parts) if parts.scheme == "unix" else _of_tcp(parts)
    for name in ("host", "port", "db"):
        if name in chosen:
            raise MessagingConfigError(
                summary=f"backend_config has both 'url' and {name!r}",
                hint=f"leave {name!r} out: the URL says where the server is",
            )
    for name in ("username", "password"):
        if name in chosen and name in found:
            raise MessagingConfigError(
                summary=f"backend_config has {name!r}, and its 'url' has one, too",
                hint="give it in one of both places",
            )
    if parts.scheme == "redis" and chosen.get("ssl"):
        raise MessagingConfigError(
            summary="backend_config has ssl=true, and a 'url' that begins with redis://",
            hint="a server that is reached by TLS has a URL that begins with rediss://",
        )
    return RedisSettings(**{**chosen, **found})


def _parts(url: object) -> SplitResult:
    if not isinstance(url, str):
        raise _wrong("url", url, "a text")
    try:
        parts = urlsplit(url)
        port = parts.port  # parsed here, where it may fail
    except ValueError as e:
        raise MessagingConfigError(summary=f"backend_config['url'] is no URL: {e}") from e
    if parts.scheme not in _SCHEMES:
        raise MessagingConfigError(
            summary=f"backend_config['url'] has the unknown scheme {parts.scheme!r}",
            hint="redis://HOST:PORT/DB, rediss://... for TLS, or unix:///PATH?db=DB",
        )
    if port == 0:
        raise _wrong("url", "port 0", "with a port from 1 to 65535")
    return parts


def _of_unix(parts: SplitResult) -> dict[str, Any]:
    if not parts.path:
        raise MessagingConfigError(
            summary="backend_config['url'] names no socket", hint="unix:///run/redis.sock?db=0"
        )
    return {"path": unquote(parts.path), **_access_of(parts), **_db_of(parts)}


def _of_tcp(parts: SplitResult) -> dict[str, Any]:
    found: dict[str, Any] = {**_access_of(parts), **_db_of(parts)}
    if parts.hostname:
        found["host"] = unquote(parts.hostname)
    if parts.port is not None:
        found["port"] = parts.port
    if parts.scheme == "rediss":
        found["ssl"] = True
    path = parts.path.strip("/")
    if path:
        if not path.isdecimal() or "db" in found:
            raise MessagingConfigError(
                summary=f"backend_config['url'] names the database {path!r}, "
                "which is no number, or one of two",
                hint="redis://HOST:PORT/DB",
            )
        found["db"] = int(path)
    return found


def _access_of(parts: SplitResult) -> dict[str, Any]:
    found = {"username": parts.username, "password": parts.password}
    return {name: unquote(value) for name, value in found.items() if value}


def _db_of(parts: SplitResult) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name != "db" or not value.isdecimal():
            raise MessagingConfigError(
                summary=f"backend_config['url'] ends with {name}={value}; only db=NUMBER may stand "
                "there",
                hint="give other settings as keys of backend_config",
            )
        found["db"] = int(value)
    return found


def _check_text(name: str, value: object) -> None:
    if not isinstance(value, str) or not value:
        shown = "***" if name == "password" and value else value
        raise _wrong(name, shown, "a text that is not empty")


def _check_number(name: str, value: object, least: int, most: int | None = None) -> None:
    good = isinstance(value, int) and not isinstance(value, bool) and value >= least
    if not good or (most is not None and isinstance(value, int) and value > most):
        wanted = f"from {least} to {most}" if most is not None else f"of {least} or more"
        raise _wrong(name, value, f"a whole number {wanted}")


def _check_seconds(name: str, value: object, *, least: float) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not value >= least:
        raise _wrong(name, value, f"a number of seconds, {least:g} or more")


def _wrong(name: str, value: object, wanted: str) -> MessagingConfigError:
    return MessagingConfigError(summary=f"backend_config[{name!r}] is {value!r}, not {wanted}")
