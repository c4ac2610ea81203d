"""What a client has asked its server, kept until it is answered."""

from __future__ import annotations

import contextlib
import itertools
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from rustic_ai.core.messaging.backend.embedded_backend.protocol import Frame, Op, Query, pack
from rustic_ai.core.messaging.backend.embedded_backend.window import with_topic
from rustic_ai.core.messaging.backend.embedded_backend.wire import Wire


@dataclass(slots=True, eq=False)
class _Asked:
    frame: bytes
    answers: deque[Frame] = field(default_factory=deque)


class Questions:
    """Asks, and waits for answers. Safe from any thread.

    Args:
        wire: returns the connection.
    """

    def __init__(self, wire: Callable[[], Wire]) -> None:
        self._wire = wire
        self._numbers = itertools.count(1)
        self._asked: dict[int, _Asked] = {}

    def ask(self, op: Op, body: bytes, *, topic: int = 0, id_: int = 0) -> Frame:
        """Ask what has one answer.

        Raises:
            BackendUnavailableError: the server is gone.
        """
        with self._asking() as (number, asked):
            self._send(asked, op, body, n=number, topic=topic, id_=id_)
            self._wire().wait(lambda: bool(asked.answers))
            return asked.answers.popleft()

    def query(self, kind: Query, *, topic: int, start: int, body: bytes) -> Iterator[Frame]:
        """Ask for rows; yields the frames of the answer, the last with ``aux == 0``."""
        with self._asking() as (number, asked):
            self._send(asked, Op.QUERY, body, n=number, aux=kind, topic=topic, id_=start)
            while True:
                self._wire().wait(lambda: bool(asked.answers))
                rows = asked.answers.popleft()
                yield rows
                if rows.aux == 0:
                    return
                if kind in {Query.FROM_POSITION, Query.SINCE_ID}:  # pages, each asked for
                    kind = Query.FROM_POSITION
                    self._send(asked, Op.QUERY, b"", n=number, aux=kind, topic=topic, id_=rows.id)

    def _send(
        self, asked: _Asked, op: Op, body: bytes, *, n: int, aux: int = 0, topic: int, id_: int
    ) -> None:
        wire = self._wire()
        with wire.sending:
            wire.check()
            asked.frame = pack(op, body, n=n, aux=aux, topic=topic, id=id_)
            wire.transmit(asked.frame)

    @contextlib.contextmanager
    def _asking(self) -> Iterator[tuple[int, _Asked]]:
        asked = _Asked(b"")
        wire = self._wire()
        with wire.state:
            number = next(self._numbers)
            self._asked[number] = asked
        try:
            yield number, asked
        finally:
            with wire.state:
                self._asked.pop(number, None)

    def answer(self, frame: Frame) -> None:
        """Take an answer, under the connection's `state`."""
        asked = self._asked.get(frame.n)
        if asked is not None:  # else nobody waits for it any more
            asked.answers.append(frame)

    def renumber(self, topics: dict[int, int]) -> None:
        """Put other numbers of topics into questions: old number -> new number."""
        for asked in self._asked.values():
            asked.frame = with_topic(asked.frame, topics)

    def open(self) -> list[bytes]:
        """Return the questions that have no answer yet, to be asked again."""
        return [asked.frame for asked in self._asked.values() if not asked.answers]
