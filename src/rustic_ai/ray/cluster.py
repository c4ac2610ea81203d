"""This program's connection to a Ray cluster, shared by all its engines."""

from __future__ import annotations

import importlib
import logging
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from rustic_ai.core.errors import EngineError
from rustic_ai.ray.directory import Directory
from rustic_ai.ray.errors import RayUnavailableError
from rustic_ai.ray.gcs import require_head
from rustic_ai.ray.installed import NAMESPACE, import_ray
from rustic_ai.ray.processes import end_processes, own_processes

_USAGE = "RAY_USAGE_STATS_ENABLED"
_lock = threading.Lock()
_joined: list[Cluster] = []
"""The connection that engines share; there is at most one in a program."""


@dataclass(eq=False)
class Cluster:
    """An open connection; made by `join`, given back by `leave`."""

    address: str
    """HOST:PORT of its head."""
    is_ours: bool
    """Whether we connected, and so disconnect; a cluster that we started then ends."""
    is_started: bool
    """Whether we started it."""
    users: int = 1
    directory: Directory = field(init=False)
    """Tells other programs of our agents."""

    def __post_init__(self) -> None:
        self.directory = Directory(self.require)

    @classmethod
    def join(cls, address: str | None, options: Mapping[str, Any]) -> Cluster:
        """Connect, or share the connection that there is.

        Args:
            address: HOST:PORT; 'auto': the cluster of this machine; 'local': start one; None: that
                of ``RAY_ADDRESS`` or of this machine, else start one.
            options: more arguments of `ray.init`.

        Raises:
            RayMissingError: Ray is not installed.
            RayUnavailableError: there is no cluster at that address.
            EngineError: the program is connected to another one.
        """
        ray = import_ray()
        with _lock:
            if _joined:
                cluster = _joined[0]
                cluster.require_same(address)
                cluster.users += 1
                return cluster
            is_ours = not ray.is_initialized()
            is_started = is_ours and _connect(address, options)
            cluster = cls(ray.get_runtime_context().gcs_address, is_ours, is_started)
            try:
                cluster.require_same(address)
            except EngineError:
                if is_ours:  # pragma: no cover - Ray has connected where it was told to
                    ray.shutdown()
                raise
            _joined.append(cluster)
            return cluster

    @classmethod
    def exists(cls, address: str | None) -> bool:
        """Say whether there is something to join without starting it."""
        ray = import_ray()
        return bool(_joined) or ray.is_initialized() or resolve(address) is not None

    def leave(self) -> None:
        """Give the connection back; the last one to do so ends it."""
        with _lock:
            self.users -= 1
            if self.users:
                return
            _joined.remove(self)
            self.directory.close()
            if not self.is_ours:
                return
            started = own_processes() if self.is_started else []
            import_ray().shutdown()
            end_processes(started)

    @property
    def is_connected(self) -> bool:
        """Whether the connection is open; the program may have closed it (`ray.shutdown`)."""
        return bool(import_ray().is_initialized())

    @property
    def is_there(self) -> bool:
        """Whether its head answers."""
        try:
            self.require()
        except RayUnavailableError:
            return False
        return True

    def require(self) -> None:
        """Make sure that the cluster is there, before Ray is asked, who waits a minute for it.

        Raises:
            RayUnavailableError: it is gone.
        """
        if not self.is_connected:
            raise RayUnavailableError(
                address=self.address,
                reason="the program's connection was closed (ray.shutdown)",
                hint="shut engines down before Ray",
            )
        require_head(self.address)

    def require_same(self, address: str | None) -> None:
        """Make sure that an address means this cluster.

        Raises:
            EngineError: it means another one.
        """
        wanted = resolve(address) if address not in {None, "auto", "local"} else None
        if wanted is not None and wanted != self.address:
            raise EngineError(
                summary=f"this program is connected to the Ray cluster at {self.address}, and "
                f"cannot join the one at {address}, too",
                hint="use one cluster in a program",
            )


def resolve(address: str | None) -> str | None:
    """Return HOST:PORT of the cluster that an address means; None: one is to be started.

    Raises:
        RayUnavailableError: it is not an address, or 'auto' finds no cluster.
    """
    shown = address or os.environ.get("RAY_ADDRESS") or "auto"
    if shown.startswith("ray://"):
        raise RayUnavailableError(
            address=shown,
            reason="agents cannot be looked after through Ray Client",
            hint="run the program on a node of the cluster, and give HOST:PORT or 'auto'",
        )
    if address == "local":
        return None
    try:
        # Ray has no public word for where `ray.init` would go.
        services = importlib.import_module("ray._private.services")
        found: str | None = services.canonicalize_bootstrap_address(address)
    except (ValueError, OSError) as e:
        raise RayUnavailableError(
            address=shown, reason=str(e), hint="an address is HOST:PORT, 'auto' or 'local'"
        ) from e
    if found is None and address == "auto":
        raise RayUnavailableError(
            address=shown,
            reason="none runs on this machine",
            hint="start one (ray start --head), or leave the address out to have one started",
        )
    return found


def _connect(address: str | None, options: Mapping[str, Any]) -> bool:
    """Connect; returns whether a cluster was started for that."""
    ray = import_ray()
    found = resolve(address)
    settings: dict[str, Any] = {"logging_level": logging.WARNING, "namespace": NAMESPACE}
    if found is None:
        settings |= {"address": "local", "include_dashboard": False}
        settings["_node_ip_address"] = "127.0.0.1"  # it is nobody else's
    else:
        require_head(found)
        settings["address"] = found
    with _own_signals(), _no_usage_statistics():
        try:
            ray.init(**{**settings, **options})
        except (ConnectionError, RuntimeError) as e:
            raise RayUnavailableError(address=found or "local", reason=str(e)) from e
    return found is None


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keep the program's handler of SIGTERM, which Ray would replace."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if handler is not None:
            signal.signal(signal.SIGTERM, handler)


@contextmanager
def _no_usage_statistics() -> Iterator[None]:
    """Have a cluster of our own tell its maker nothing, unless the user has decided."""
    decided = os.environ.get(_USAGE)
    os.environ.setdefault(_USAGE, "0")
    try:
        yield
    finally:
        if decided is None:
            del os.environ[_USAGE]
