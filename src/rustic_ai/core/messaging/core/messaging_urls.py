"""Addresses of message stores: a line that says which backend, and where."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any
from urllib.parse import SplitResult, parse_qsl, urlsplit

from rustic_ai.core.errors import MessagingConfigError

_EMBEDDED_SETTINGS = ("transport", "token", "data_dir", "sync", "overflow")


def config_of_url(url: str) -> dict[str, Any]:
    """Return the fields of the `MessagingConfig` that an address stands for.

    ============================  ==========================================================
    ``memory://``                 within this process, for the sync engine
    ``embedded://HOST:PORT``      the embedded server, started where nobody listens
    ``redis://HOST:PORT/DB``      Redis; ``rediss://`` with TLS, ``unix:///PATH`` by socket
    ``nats://HOST:PORT``          NATS JetStream; ``tls://`` with TLS
    ============================  ==========================================================

    An embedded server takes settings behind a question mark:
    ``embedded://localhost:0?data_dir=/var/lib/guild&sync=group``.

    Raises:
        MessagingConfigError: the scheme is unknown, or the address cannot be read.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as e:
        raise MessagingConfigError(summary=f"messaging address {url!r} cannot be read: {e}") from e
    make = _SCHEMES.get(parts.scheme)
    if make is None or "://" not in url:
        near = difflib.get_close_matches(parts.scheme or url, _SCHEMES, n=1)
        raise MessagingConfigError(
            summary=f"messaging address {url!r} begins with none of "
            + ", ".join(f"{scheme}://" for scheme in _SCHEMES),
            hint=f"did you mean {near[0]}://?" if near else "",
        )
    return make(url, parts, port)


def _memory(_url: str, _parts: SplitResult, _port: int | None) -> dict[str, Any]:
    return _config("rustic_ai.core.messaging.backend.in_memory_backend", "InMemoryMessagingBackend")


def _embedded(url: str, parts: SplitResult, port: int | None) -> dict[str, Any]:
    settings: dict[str, Any] = dict(parse_qsl(parts.query))
    if unknown := sorted(settings.keys() - _EMBEDDED_SETTINGS):
        raise MessagingConfigError(
            summary=f"messaging address {url!r}: no setting {unknown[0]!r} in an address "
            f"(there are: {', '.join(_EMBEDDED_SETTINGS)})",
            hint="others can be given in backend_config",
        )
    if parts.hostname:
        settings["host"] = parts.hostname
    if port is not None:
        settings["port"] = port
    module = "rustic_ai.core.messaging.backend.embedded_backend"
    return _config(module, "EmbeddedMessagingBackend", **settings)


def _redis(url: str, _parts: SplitResult, _port: int | None) -> dict[str, Any]:
    return _config("rustic_ai.redis.messaging", "RedisMessagingBackend", url=url)


def _nats(url: str, _parts: SplitResult, _port: int | None) -> dict[str, Any]:
    return _config("rustic_ai.nats.messaging", "NatsMessagingBackend", servers=url)


_SCHEMES: dict[str, Callable[[str, SplitResult, int | None], dict[str, Any]]] = {
    "memory": _memory,
    "embedded": _embedded,
    "redis": _redis,
    "rediss": _redis,
    "unix": _redis,
    "nats": _nats,
    "tls": _nats,
}


def _config(module: str, name: str, **settings: Any) -> dict[str, Any]:
    return {"backend_module": module, "backend_class": name, "backend_config": settings}
