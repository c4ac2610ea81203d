"""The server: its life, and what it needs for it."""

from __future__ import annotations

import atexit
import errno
import logging
import secrets
import socket
import threading
from collections.abc import Callable
from pathlib import Path

from rustic_ai.core.errors import JournalError, PortTakenError
from rustic_ai.core.messaging.backend.embedded_backend.access import ServerFiles, clean_dead
from rustic_ai.core.messaging.backend.embedded_backend.config import (
    EMBEDDED_SERVER_PORT,
    Sync,
)
from rustic_ai.core.messaging.backend.embedded_backend.core import Core
from rustic_ai.core.messaging.backend.embedded_backend.journal import Journal
from rustic_ai.core.messaging.backend.embedded_backend.limits import Limits
from rustic_ai.core.messaging.backend.embedded_backend.loop import Loop
from rustic_ai.core.messaging.backend.embedded_backend.store import Bounds
from rustic_ai.core.messaging.core.stop_signal import StopSignal

logger = logging.getLogger(__name__)

_BACKLOG = 512


def loopback(host: str) -> str:
    """Return the address for a host; 'localhost' is IPv4's, wherever the resolver points."""
    return "127.0.0.1" if host == "localhost" else host


class EmbeddedServer:
    """Keeps messages and pushes them to subscribers.

    Listens on a Unix socket in this user's private directory, where the platform has them, and on
    TCP, where clients must know a token that the same user's programs find by themselves.

    Works on a thread of its own; `start` and `stop` are coroutines for the sake of programs that
    have a loop, and hold it up for a moment only. An error in one connection ends that one.

    Args:
        host: where to listen for TCP; 'localhost' is 127.0.0.1.
        port: the port; 0 takes a free one, which `port` then says.
        data_dir: where to keep a journal, so that what is stored outlives the server; None: none.
        sync: when the journal is forced to the disk: 'none', every 50 ms ('interval'), or before
            anything is acknowledged ('group'). A killed server loses nothing with any of them, a
            machine without power may.
        bounds: how much is kept.
        limits: what is refused.
        max_connections: one more is refused.
    """

    def __init__(
        self,
        host: str = "localhost",
        port: int = EMBEDDED_SERVER_PORT,
        *,
        data_dir: str | Path | None = None,
        sync: Sync = "interval",
        bounds: Bounds | None = None,
        limits: Limits | None = None,
        max_connections: int = 1024,
    ) -> None:
        self.host = host
        self.port = port
        self._data_dir = Path(data_dir) if data_dir is not None else None
        self._sync: Sync = sync
        self._bounds = bounds
        self._limits = limits
        self._max_connections = max_connections
        self._files: ServerFiles | None = None
        self._journal: Journal | None = None
        self._thread: threading.Thread | None = None
        self._stop: StopSignal | None = None
        self._ends_when_empty = False
        self._when_decided: Callable[[bool], None] = lambda _: None

    @property
    def running(self) -> bool:
        """Whether it listens."""
        return self._thread is not None and self._thread.is_alive()

    async def start(self) -> None:
        """Listen; returns when clients can connect. Again: does nothing.

        Raises:
            PortTakenError: somebody else listens there.
            JournalError: the journal cannot be read, or belongs to another server.
            OSError: the address cannot be used.
        """
        self.start_thread()

    async def stop(self) -> None:
        """End all connections and free the port; returns when both is done. Again: does nothing."""
        self.stop_thread()

    def start_thread(self) -> None:
        """Do what `start` does, without a loop."""
        if self.running:
            return
        listener = self._bind()
        try:
            self.port = listener.getsockname()[1]
            clean_dead()
            self._files = ServerFiles.claim(self.port)
            core = self._open_core(self._files.token)
            local = self._files.bind()
        except BaseException:
            listener.close()
            self._give_back()
            raise
        self._stop = StopSignal()
        self._loop = Loop(core, self._journal, listener, local, self._stop, self._max_connections)
        name = f"rustic-server-{self.port}"
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()
        atexit.register(self.stop_thread)  # a program may end without; its files must go

    def _open_core(self, token: bytes) -> Core:
        life = secrets.randbits(63)
        if self._data_dir is None:
            epoch = secrets.randbits(63)
            return Core(self._bounds, self._limits, epoch=epoch, life=life, token=token)
        self._journal, recovered = Journal.open(self._data_dir, sync=self._sync)
        core = Core(
            self._bounds,
            self._limits,
            journal=self._journal,
            epoch=recovered.epoch,
            life=life,
            token=token,
        )
        core.restore(recovered)
        return core

    def _bind(self) -> socket.socket:
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((loopback(self.host), self.port))
            listener.listen(_BACKLOG)
            listener.setblocking(False)
        except OSError as e:
            listener.close()
            if e.errno == errno.EADDRINUSE:
                raise PortTakenError(address=f"{self.host}:{self.port}") from e
            raise
        return listener

    def stop_thread(self) -> None:
        """Do what `stop` does, without a loop."""
        if self._thread is not None and self._stop is not None:
            atexit.unregister(self.stop_thread)
            self._stop.set()
            self._thread.join()
            self._stop.close()
            self._thread = self._stop = None

    def join(self) -> None:
        """Wait until it ends by itself, see `end_when_empty`."""
        if self._thread is not None:
            self._thread.join()

    def end_when_empty(self, when_decided: Callable[[bool], None]) -> None:
        """Let it end as soon as no client is connected.

        Args:
            when_decided: called with True if that is so now, or with False if it stays for others.
        """
        self._when_decided = when_decided
        self._ends_when_empty = True
        if self._stop is not None:
            self._stop.set()  # wakes the loop, which sees why

    def _run(self) -> None:
        stop, turn = self._stop, self._loop.turn
        assert stop is not None
        try:
            while not (stop.stopped and self._over()):
                turn()
        except JournalError:
            # Nothing may be acknowledged that is not kept: clients keep it until we are back.
            logger.exception("the server ends, since its journal cannot be written")
        finally:
            self._give_back()
            self._loop.close()

    def _over(self) -> bool:
        """Say whether it ends, now that it was told to stop, or as soon as it is empty."""
        if not self._ends_when_empty:
            return True
        if self._loop.hear_no_more_of_stop():
            self._when_decided(self._loop.is_empty)
        return self._loop.is_empty

    def _give_back(self) -> None:
        if self._files is not None:
            self._files.remove()
            self._files = None
        journal, self._journal = self._journal, None
        if journal is not None:
            try:
                journal.close()
            except JournalError:
                logger.exception("the journal could not be closed")
