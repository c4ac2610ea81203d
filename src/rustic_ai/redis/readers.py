"""Threads that wait for messages, each on a connection of its own."""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from rustic_ai.core.errors import BackendClosedError, GuildError
from rustic_ai.core.messaging.backend.remote import Delivery, Place
from rustic_ai.redis.held import Held, position_of
from rustic_ai.redis.link import FAILURES, Link, is_no_group, is_passing, meaning_of
from rustic_ai.redis.presence import Presence
from rustic_ai.redis.scripts import TAKE
from rustic_ai.redis.store import ANSWER_WITHIN, Patience, Store
from rustic_ai.redis.units import taken

logger = logging.getLogger(__name__)

WAIT_SECONDS = 20.0
"""How long the server keeps a reader waiting: after that the connection is known to work."""
_END_WITHIN = 2.0
_MOST, _CHUNK_BYTES = 512, 2 << 20


class Hooks(NamedTuple):
    """What a reader tells its backend."""

    deliver: Callable[[Sequence[Delivery]], None]
    await_room: Callable[[Place], bool]
    lost: Callable[[Exception], None]


class Reader(ABC):
    """Reads several topics with one command. A change of the topics interrupts it.

    Args:
        store: the server.
        presence: says that we are there.
        hooks: the backend.
        name: of the thread.
    """

    def __init__(self, store: Store, presence: Presence, hooks: Hooks, name: str) -> None:
        self._store = store
        self._presence = presence
        self._hooks = hooks
        self._held: list[Held] = []
        self._changed = threading.Condition()
        self._version = 0
        self._reading: Link | None = None
        self._ended = False
        self._count = _MOST
        self._number = store.number
        self._is_back = self._was_cut_off = self._is_new_store = False
        self._thread = threading.Thread(
            target=self._run, name=f"rustic-redis-read-{name}", daemon=True
        )

    def add(self, held: Held) -> bool:
        """Read one more; returns False where this reader has ended."""
        with self._changed:
            if self._ended:
                return False
            self._held.append(held)
            self._change()
            if self._thread.ident is None:
                self._thread.start()
            return True

    def remove(self, held: Held) -> bool:
        """Read one less; returns whether none is left: then the reader has ended."""
        with self._changed:
            if held in self._held:
                self._held.remove(held)
            self._ended = self._ended or not self._held
            self._change()
            return self._ended

    def end(self) -> None:
        """Have the thread end."""
        with self._changed:
            self._ended = True
            self._change()

    @property
    def runs(self) -> bool:
        """Whether its thread has not ended."""
        return self._thread.is_alive()

    def join(self) -> None:
        """Wait until it has ended, for a moment."""
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join(_END_WITHIN)

    def _change(self) -> None:
        self._version += 1
        self._changed.notify_all()
        if self._reading is not None:
            self._reading.shut()

    # The thread

    def _run(self) -> None:
        try:
            self._read_until_ended()
        except BackendClosedError:
            logger.debug("%s ends: its backend was closed", self._thread.name)
        except Exception as e:  # noqa: BLE001 - raised by whoever serves
            self._hooks.lost(e)

    def _read_until_ended(self) -> None:
        patience: Patience | None = None
        while not self._ended:
            link: Link | None = None
            try:
                link = self._store.connect(
                    patience or self._store.patience(), WAIT_SECONDS + ANSWER_WITHIN
                )
                self._begin(link)
                patience = None
                while (reply := self._next_reply(link)) is not None:
                    self._take(link, reply)
            except GuildError:
                raise
            except FAILURES as e:
                self._is_back = link is None or not link.was_shut  # else it was ourselves
                if not self._is_back:
                    continue
                self._was_cut_off = not is_no_group(e)
                if self._was_cut_off and not is_passing(e):
                    raise meaning_of(e, self._store.settings) from e
                patience = patience or self._store.patience()
                patience.pause(e)
            finally:
                self._close(link)

    def _close(self, link: Link | None) -> None:
        with self._changed:
            self._reading = None
        if link is not None:
            link.close()

    def _begin(self, link: Link) -> None:
        """Prepare to read on a new connection."""
        if not self._is_back:
            return
        number = self._store.look_up_number(link)
        self._is_new_store = number != self._number
        self._number = number
        with self._changed:
            held = list(self._held)
        for one in held:
            self._presence.add(one.place, link)
        self._mend(held)

    @abstractmethod
    def _mend(self, held: list[Held]) -> None:
        """See to subscriptions after the server was away."""

    def _next_reply(self, link: Link) -> list[Any] | None:
        """Wait for messages, if there is room for them; None: this reader has ended."""
        while not self._ended:
            with self._changed:
                version, held = self._version, list(self._held)
            ready = [one for one in held if self._hooks.await_room(one.place)]
            self._prepare(link, ready)
            with self._changed:
                if not ready:  # they are just being closed
                    self._changed.wait_for(lambda v=version: self._version != v)  # type: ignore[misc]
                if self._version != version:
                    continue
                self._reading = link
            reply: list[Any] | None = link.call(*self._command(ready))
            with self._changed:
                self._reading = None
            if reply:
                return reply
        return None

    @abstractmethod
    def _prepare(self, link: Link, held: list[Held]) -> None:
        """Have the server ready to be asked for these."""

    @abstractmethod
    def _command(self, held: list[Held]) -> list[Any]:
        """Return the command that waits for messages of these."""

    def _take(self, link: Link, reply: list[Any]) -> None:
        """Deliver what has come."""
        size = number = 0
        with self._changed:
            by_stream: dict[bytes, list[Held]] = {}
            for one in self._held:
                by_stream.setdefault(one.stream.encode(), []).append(one)
        for stream, entries in reply:
            number += len(entries)
            size += sum(len(fields[1]) for _, fields in entries)
            for one in by_stream.get(stream, ()):
                deliveries, again = one.received(self._wanted(one, entries))
                self._hooks.deliver(deliveries)
                if again:
                    link.call("XACK", one.stream, one.group, *again)
        if number:  # large messages by fewer at a time: they all lie in memory here
            self._count = max(1, min(_MOST, _CHUNK_BYTES // (size // number + 1)))

    @abstractmethod
    def _wanted(self, held: Held, entries: list[Any]) -> list[Any]:
        """Return which of the entries are for this subscription."""


class GroupReader(Reader):
    """Reads the durable places of one subscriber, by its consumer group.

    Args:
        store: the server.
        presence: says that we are there.
        hooks: the backend.
        subscriber: whose places they are.
    """

    def __init__(self, store: Store, presence: Presence, hooks: Hooks, subscriber: str) -> None:
        super().__init__(store, presence, hooks, subscriber)
        self._subscriber = subscriber
        self._group = ""
        self._connections = 0

    def _begin(self, link: Link) -> None:
        self._connections += 1
        self._group = f"{self._subscriber}@{self._store.token}.{self._connections}"
        super()._begin(link)

    def _mend(self, held: list[Held]) -> None:
        """Nothing yet: `_prepare` sees to each, since its group is that of another connection."""

    def _command(self, held: list[Held]) -> list[Any]:
        return [
            *("XREADGROUP", "GROUP", self._group, "reader", "COUNT", self._count),
            *("BLOCK", round(WAIT_SECONDS * 1000), "STREAMS"),
            *(one.stream for one in held),
            *(b">" for _ in held),
        ]

    def _wanted(self, held: Held, entries: list[Any]) -> list[Any]:  # noqa: ARG002
        return entries

    def _prepare(self, link: Link, held: list[Held]) -> None:
        for one in held:
            if one.group != self._group:
                self._take_again(link, one)

    def _take_again(self, link: Link, held: Held) -> None:
        """Make the group of a place that of this connection."""
        topic = held.place.topic
        keys = self._store.keys
        names = [keys.holders(topic), held.stream, keys.held(self._subscriber)]
        begin = b"0" if self._is_new_store else held.last
        words = [self._subscriber, self._store.token, begin, topic, self._group]
        reply = TAKE.run(link, names, [*words, "1"])
        if not self._holds(held):
            return
        if reply == b"taken":
            raise taken(self._store, self._subscriber)
        if reply == b"gone":
            if not (self._was_cut_off or self._is_new_store):
                logger.info("the place of %r in topic %r was given up", self._subscriber, topic)
                self.remove(held)
                return
            reply = TAKE.run(link, names, [*words, "0"])
        is_new, position, *_ = reply
        if not is_new:
            held.resume(self._group, _last_read(link, held))
            return
        logger.warning(
            "Redis at %s has lost the place of %r in topic %r, and what waited there; "
            "it keeps them with appendonly yes",
            *(self._store.settings.address, self._subscriber, topic),
        )
        held.begin(position, self._group)

    def _holds(self, held: Held) -> bool:
        with self._changed:
            return held in self._held


def _last_read(link: Link, held: Held) -> bytes:
    """Return the last entry that was read and that the stream still has; 0-0 where it has none.

    A server that lost some at its end may have others in their place, by its own clock.
    """
    end = held.last
    while found := link.call("XREVRANGE", held.stream, end, "-", "COUNT", 1):
        entry = bytes(found[0][0])
        if held.has_read(entry):
            return entry
        end = b"(" + entry
    return b"0-0"


class PlainReader(Reader):
    """Reads subscriptions that leave nothing in the server: their positions are here."""

    def _command(self, held: list[Held]) -> list[Any]:
        lasts: dict[str, bytes] = {}
        for one in held:
            lasts[one.stream] = min(lasts.get(one.stream, one.last), one.last, key=position_of)
        return [
            *("XREAD", "COUNT", self._count, "BLOCK", round(WAIT_SECONDS * 1000), "STREAMS"),
            *lasts,
            *lasts.values(),
        ]

    def _wanted(self, held: Held, entries: list[Any]) -> list[Any]:
        last = position_of(held.last)
        return [entry for entry in entries if position_of(entry[0]) > last]

    def _prepare(self, link: Link, held: list[Held]) -> None:
        """Nothing: the positions are here."""

    def _mend(self, held: list[Held]) -> None:
        if not self._is_new_store:
            return
        logger.warning(
            "Redis at %s has lost its messages; %d subscriptions go on with new ones",
            *(self._store.settings.address, len(held)),
        )
        for one in held:
            one.begin(b"0-0")
