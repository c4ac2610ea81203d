"""A client's part in shared memory: what it puts there, and what it gets from there."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from rustic_ai.core.errors import BackendClosedError, BackendUnavailableError
from rustic_ai.core.messaging.backend.embedded_backend.protocol import Frame, Op, pack
from rustic_ai.core.messaging.backend.embedded_backend.shared.channel import Channel
from rustic_ai.core.messaging.backend.embedded_backend.shared.loans import Loans
from rustic_ai.core.messaging.backend.embedded_backend.shared.mentions import mentioned_by
from rustic_ai.core.messaging.backend.embedded_backend.shared.pool import (
    SMALLEST,
    Pool,
    Segment,
)
from rustic_ai.core.messaging.backend.embedded_backend.shared.segment import (
    address_of,
    copy_into,
)
from rustic_ai.core.messaging.core.attachment import (
    InBody,
    LostPart,
    Part,
    Place,
    size_of,
    write_part,
)

logger = logging.getLogger(__name__)

_PATIENCE_PER_BYTE = 1e-9
"""Seconds that a part waits for a free slot: about as long as it would take in the body."""
_PATIENCE = 1.0
_SERVER_COMES_BACK = 30.0
"""Seconds for which a part waits for a server that is gone."""
_MOMENT = 1.0
"""Seconds after which a server that does not answer is asked again."""


class Exchange:
    """Puts parts into slots, and fetches them. Safe from any thread.

    Args:
        client: number of the client.
        open_channel: connects to the server that the client is connected to.
        hold: asks the server to keep what lies in a place; False: it is not there any more.
        wait: waits until its argument returns true, while the server is listened to, or until a
            point in time; raises `BackendUnavailableError` where that passes.
        limit: bytes that the segments of this client may have together.
        life: that of the server's process that the client is connected to.
    """

    def __init__(
        self,
        client: int,
        open_channel: Callable[[], socket.socket],
        hold: Callable[[Place], bool],
        wait: Callable[[Callable[[], bool], float], None],
        limit: int,
        life: int,
    ) -> None:
        self._client = client
        self._open_channel = open_channel
        self._hold = hold
        self._wait = wait
        self._limit = limit
        self._life = life
        self._resumed = 0
        """How many times the client has gone on with a server."""
        self._unsent: dict[tuple[int, int], Any] = {}
        """Blocks of messages that are not sent yet, by slot and use: a step waits for its end."""
        self._channel: Channel | None = None
        self._channel_lock = threading.Lock()
        self._dropped: deque[int] = deque()
        self.pool = Pool(limit, self._dropped)
        self.loans = Loans()

    # Putting

    def allocate(self, size: int) -> memoryview | None:
        """Return memory to fill that is then sent without a copy; None where there is no room."""
        block = self._acquire(size) if size >= SMALLEST else None
        return memoryview(block).cast("B") if block is not None else None

    def put(self, parts: Sequence[Part]) -> tuple[list[Place | None], list[Part]]:
        """Put parts into slots, until their message is sent or taken back.

        Returns:
            Where each lies, None for those that have to stand in the body; and the parts, those
            that were copied as they lie in their slots now: a second topic needs no second copy.
        """
        places: list[Place | None] = []
        lying: list[Part] = []
        try:
            for part in parts:
                place, lies = self._put(part)
                places.append(place)
                lying.append(lies)
        except BaseException:
            self.take_back(places)
            raise
        return places, lying

    def _put(self, part: Part) -> tuple[Place | None, Part]:
        found = None if isinstance(part, InBody | LostPart) else self._find(part)
        found_there = found is not None
        if found is None and size_of(part) >= SMALLEST and not isinstance(part, InBody):
            found = self._copy(part)
        if found is None:
            return None, part
        block, start, size = found
        place, segment = self.pool.place(block, start, size)
        if not segment.offered and not self._offer(segment):
            return None, part
        self._unsent[place.slot, place.use] = block
        return place, part if found_there else memoryview(block).cast("B")

    def leaves(self, unit: bytes) -> None:
        """Take note that a unit is sent now."""
        for place in mentioned_by(unit):
            self.pool.sent(place.slot, place.use)
            self._unsent.pop((place.slot, place.use), None)

    def stays(self, unit: bytes) -> None:
        """Take note that a unit will not be sent; nothing where it was."""
        self.take_back(mentioned_by(unit))

    def take_back(self, places: Sequence[Place | None]) -> None:
        """Take note that the message of these will not be sent."""
        for place in places:
            if place is not None:
                self._unsent.pop((place.slot, place.use), None)

    def _find(self, part: Any) -> tuple[Any, int, int] | None:
        """Return the block of ours that a part lies in already, and where in it."""
        address = _address(part) if isinstance(part, memoryview) and part.nbytes else None
        if address is None:
            return None
        block = self.pool.block_at(address, part.nbytes)
        return (block, address - address_of(block), part.nbytes) if block is not None else None

    def _copy(self, part: Part) -> tuple[Any, int, int] | None:
        size = size_of(part)
        block = self._acquire(size)
        if block is None:
            return None
        if isinstance(part, memoryview):
            copy_into(block, part)
        else:
            write_part(part, memoryview(block).cast("B"))
        return block, 0, size

    def _acquire(self, size: int) -> Any | None:
        if size > self._limit or not self._has_channel():
            return None
        try:
            block = self.pool.acquire(size)
            if block is None:
                deadline = time.monotonic() + min(_PATIENCE, size * _PATIENCE_PER_BYTE)
                with contextlib.suppress(BackendUnavailableError):  # a publish will say so
                    self._wait(lambda: self.pool.has(size), deadline)
                block = self.pool.acquire(size)
        except OSError:
            logger.exception("no shared memory for %d bytes, they travel in the message", size)
            return None
        return block

    def _offer(self, segment: Segment) -> bool:
        """Let the server have a segment; False where it cannot."""
        try:
            segment.offered = self._connected().offer(segment.id, segment.fd)
        except BackendUnavailableError as e:
            logger.debug("no shared memory: %s", e)
        return segment.offered

    # Getting

    def fetch(self, place: Place) -> Part:
        """Return a part of a message in hand; `LostPart` where it is not to be had."""
        try:
            return self.loans.borrow(place, self._want)
        except OSError as e:
            logger.exception("a part of %d bytes cannot be mapped", place.size)
            return LostPart(f"it cannot be mapped: {e}")

    def fetch_old(self, place: Place) -> Part:
        """Return a part of a message that may be acknowledged; `LostPart` if nobody needs it."""
        with self.loans.expecting(place.slot):
            if not self._hold(place):
                return LostPart(
                    "its message was handled by its subscribers, and its memory used again"
                )
            self.loans.held(place.slot)
            return self.fetch(place)

    def _want(self, segment: int) -> int | None:
        """Return the descriptor of a segment; waits for a server that is gone.

        The next one may have a journal: a message in hand would count as handled, and its part
        would be lost though its owner still has it.
        """
        deadline = time.monotonic() + _SERVER_COMES_BACK
        while True:
            resumed = self._resumed
            try:
                return self._connected().want(segment)
            except BackendUnavailableError:
                if not self._resumes(resumed, deadline):
                    logger.exception("the segment of a part cannot be had from the server")
                    return None

    def _resumes(self, resumed: int, deadline: float) -> bool:
        """Wait a moment for the client to go on with a server; False where that is no use."""
        now = time.monotonic()
        moment = min(deadline, now + _MOMENT)
        try:
            self._wait(lambda: self._resumed != resumed, moment)
        except BackendClosedError:
            return False
        except BackendUnavailableError:  # the moment is over, or the server lost for good
            return moment <= time.monotonic() < deadline
        return now < deadline

    # The server

    def _has_channel(self) -> bool:
        try:
            self._connected()
        except BackendUnavailableError as e:
            logger.debug("no shared memory: %s", e)
            return False
        return True

    def _connected(self) -> Channel:
        with self._channel_lock:
            channel = self._channel
            if channel is None or channel.closed:
                channel = Channel(self._open_channel(), self._client)
                if channel.life != self._life:  # the client has not noticed yet
                    channel.close()
                    raise BackendUnavailableError(
                        address="the message server", reason="it was started again"
                    )
                self._channel = channel
                needed = self.pool.take_back_offers()
                try:
                    for segment in needed:
                        segment.offered = channel.offer(segment.id, segment.fd)
                finally:
                    self.pool.let_go(needed)
            return channel

    def resume(self, life: int) -> list[bytes]:
        """Go on with a server after the connection was lost, before anything is sent again.

        Another server knows nothing of who looks at what: no slot of ours is filled again that is
        there now, and what others have is not what it will offer.

        Args:
            life: that of the server's process.

        Returns:
            What it must hear when everything was sent again: of slots that messages may need.

        Raises:
            BackendUnavailableError: the server does not take what these need.
        """
        same, self._life = life == self._life, life
        self.loans.start_over(same_server=same)
        if not same:
            self.pool.abandon()
        uses: list[tuple[int, int]] = []
        if self._channel is not None:  # the server may have closed it, too
            self._channel.close()
            uses = self.pool.uses()
            if uses:
                self._connected()
            else:
                self._has_channel()
        self._resumed += 1
        return [pack(Op.RELEASED, id=slot, n=use) for slot, use in uses]

    @property
    def has_errands(self) -> bool:
        """Whether there may be something that the server must hear."""
        return bool(self._dropped) or self.loans.has_news

    def errands(self, *, at_rest: bool) -> bytes:
        """Return what the server must hear before anything more is acknowledged.

        Args:
            at_rest: whether no message is in hand or waits to be.
        """
        news = self.loans.news(at_rest=at_rest)
        while self._dropped:
            news += pack(Op.FORGET, id=self._dropped.popleft())
        return news

    def hear(self, frame: Frame) -> None:
        """Take the server's word: RELEASED, FORGET or RETIRE."""
        match frame.op:
            case Op.RELEASED:
                self.pool.released(frame.id, frame.n)
            case Op.FORGET:
                self.loans.forget(frame.id)
            case Op.RETIRE:
                self.pool.retire(frame.id)

    def close(self) -> None:
        """Let go of everything but what is still looked at."""
        self._limit = 0
        self._unsent.clear()
        self.pool.close()
        if self._channel is not None:
            self.loans.close(self._channel.close)


def _address(view: memoryview) -> int | None:
    """Return where the memory of an array or a block begins; None of anything else."""
    owner: Any = view.obj
    described = getattr(owner, "__array_interface__", None)
    if described is not None:
        return int(described["data"][0]) if owner.nbytes == view.nbytes else None
    is_block = hasattr(owner, "mapping") and len(owner) == view.nbytes
    return address_of(owner) if is_block else None
