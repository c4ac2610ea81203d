"""The server as this backend sees it: calls that outlive lost connections."""

from __future__ import annotations

import logging
import math
import random
import secrets
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from rustic_ai.core.errors import (
    BackendClosedError,
    BackendUnavailableError,
    GuildError,
    MessagingConfigError,
)
from rustic_ai.redis.keys import Keys
from rustic_ai.redis.link import FAILURES, Link, is_no_group, is_passing, meaning_of, redis_errors
from rustic_ai.redis.scripts import Script
from rustic_ai.redis.settings import RedisSettings

logger = logging.getLogger(__name__)

T = TypeVar("T")

CONNECT_WITHIN = 5.0
"""Seconds in which a server must be there when a backend is made; it may just be starting."""
ANSWER_WITHIN = 10.0
"""Seconds after which a server that does not answer counts as gone."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 1.0
_OLDEST_SERVER = 7


class Patience:
    """How long the same is tried again, and with which pauses.

    Args:
        store: whose end is the end of all trying.
        limit: seconds.
    """

    def __init__(self, store: Store, limit: float) -> None:
        self._store = store
        self._ends = time.monotonic() + limit
        self._limit = limit
        self._pause = _FIRST_PAUSE

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return max(0.0, min(self._ends, self._store.leaves_at) - time.monotonic())

    def pause(self, error: BaseException) -> None:
        """Wait a moment longer than before.

        Raises:
            BackendUnavailableError: it has been tried for long enough; or what `error` means.
            BackendClosedError: the store was closed.
        """
        store = self._store
        left = self.left
        if left <= 0:
            meaning = meaning_of(error, store.settings)
            if isinstance(meaning, BackendUnavailableError) and self._limit > CONNECT_WITHIN:
                meaning.reason += f" (tried for {self._limit:g} s)"
            raise meaning from error
        store.note_outage(error)
        # Jitter: the clients of a server that comes back should not all call at one moment.
        wait = min(left, self._pause * (0.5 + random.random() / 2))  # noqa: S311 - no secret
        self._pause = min(_LONGEST_PAUSE, self._pause * 2)
        if store.closed.wait(wait):
            raise BackendClosedError from error


class Store:
    """Connections to the server, as many as threads use at once.

    Args:
        settings: where it is.

    Raises:
        BackendUnavailableError: it is not there.
        AccessError: it does not let us in.
        MessagingConfigError: a setting is wrong, or the server is too old.
    """

    def __init__(self, settings: RedisSettings) -> None:
        self.settings = settings
        self.keys = Keys(settings.prefix)
        self.token = secrets.token_hex(6)
        """Of this client, in all that it leaves in the server."""
        self.closed = threading.Event()
        self.leaves_at = math.inf
        """When there is no use in trying any more, by the monotonic clock."""
        self._free: list[Link] = []
        self._lock = threading.Lock()
        self._is_out = False
        within = min(settings.reconnect_timeout, CONNECT_WITHIN)
        self.number = self.using(self._look, within)
        """Of the database; see `look_up_number`."""

    @property
    def link_name(self) -> str:
        """How the connections of this client are called in the server."""
        return f"rustic-{self.token}"

    def connect(self, patience: Patience, answer_within: float = 0.0) -> Link:
        """Make a connection, once; `answer_within`: seconds, 0: the usual ones."""
        return Link(
            self.settings,
            self.link_name,
            connect_within=max(0.05, min(CONNECT_WITHIN, patience.left)),
            answer_within=answer_within or ANSWER_WITHIN,
        )

    def using(self, work: Callable[[Link], T], limit: float | None = None) -> T:
        """Have `work` done with a connection; again, where the server goes away meanwhile.

        `work` must be something that may be done twice.

        Args:
            work: talks to the server.
            limit: seconds for which it is tried; None: `reconnect_timeout`.

        Raises:
            BackendUnavailableError: the server stayed away.
            BackPressureError: the server stayed full.
            BackendClosedError: this store was closed.
        """
        patience: Patience | None = None
        while True:
            if self.closed.is_set():
                raise BackendClosedError
            link: Link | None = None
            try:
                with self._lock:
                    link = self._free.pop() if self._free else None
                if link is None:
                    patience = patience or self.patience(limit)
                    link = self.connect(patience)
                answer = work(link)
            except GuildError:
                self._drop(link)
                raise
            except FAILURES as e:
                self._drop(link)
                if not is_passing(e):
                    raise meaning_of(e, self.settings) from e
                patience = patience or self.patience(limit)
                patience.pause(e)
            except BaseException:
                self._drop(link)  # there may be replies on it that nobody has read
                raise
            else:
                self._give_back(link)
                return answer

    def patience(self, limit: float | None = None) -> Patience:
        """Return the patience for something that has just failed."""
        return Patience(self, self.settings.reconnect_timeout if limit is None else limit)

    def call(self, *words: Any) -> Any:
        """Have a command done that may be done twice."""
        return self.using(lambda link: link.call(*words))

    def run(self, script: Script, keys: list[str], arguments: list[Any]) -> Any:
        """Run a script that may be run twice."""
        return self.using(lambda link: script.run(link, keys, arguments))

    def _drop(self, link: Link | None) -> None:
        """Close a connection that is of no use; those that lie idle are not better."""
        with self._lock:
            idle, self._free = self._free, []
        for one in [*idle, *([link] if link is not None else ())]:
            one.close()

    def _give_back(self, link: Link) -> None:
        if self._is_out:
            self._is_out = False
            logger.info("Redis at %s is there again", self.settings.address)
        with self._lock:
            if not self.closed.is_set():
                self._free.append(link)
                return
        link.close()

    def note_outage(self, error: BaseException) -> None:
        """Log, once, that the server is away."""
        if not (self._is_out or is_no_group(error)):
            self._is_out = True
            logger.warning("Redis at %s is away: %s", self.settings.address, error)

    def _look(self, link: Link) -> bytes:
        """Check what the server is; returns the number of its database."""
        try:
            self._check_server(_facts(link.call("INFO")))
        except redis_errors.NoPermissionError:
            logger.debug("this user may not ask the server what it is")
        return self.look_up_number(link)

    def _check_server(self, facts: dict[str, str]) -> None:
        version = facts.get("redis_version", "0")
        if int(version.partition(".")[0]) < _OLDEST_SERVER:
            raise MessagingConfigError(
                summary=f"Redis at {self.settings.address} has version {version}; "
                f"messaging needs {_OLDEST_SERVER}.0 or newer"
            )
        policy = facts.get("maxmemory_policy", "noeviction")
        if policy.startswith("allkeys") and facts.get("maxmemory", "0") != "0":
            logger.warning(
                "Redis at %s throws messages away when it is full (maxmemory-policy %s)",
                self.settings.address,
                policy,
            )

    def look_up_number(self, link: Link) -> bytes:
        """Return the number that the first client gave this database; another: it is new."""
        mine = secrets.token_hex(8)
        found = link.call("SET", self.keys.store, mine, "NX", "GET")
        return bytes(found) if found is not None else mine.encode()

    def leave_within(self, seconds: float) -> None:
        """Try nothing any longer than that from now on."""
        self.leaves_at = min(self.leaves_at, time.monotonic() + seconds)

    def close(self) -> None:
        """Close the connections; who still waits for the server gets an error. Idempotent."""
        self.closed.set()
        self._drop(None)


def _facts(info: bytes) -> dict[str, str]:
    lines = (line.partition(":") for line in info.decode(errors="replace").splitlines())
    return {name: value.strip() for name, separator, value in lines if separator}
