"""What a client has asked its server, kept until it is answered."""

from __future__ import annotations

import contextlib
import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from rustic_ai.core.messaging.backend.embedded_backend.protocol import Frame, Op, Query, pack
from rustic_ai.core.messaging.backend.embedded_backend.window import with_topic
from rustic_ai.core.messaging.backend.embedded_backend.wire import Wire

_AT_ONCE = 256
"""Questions that are sent before their answers are read: many more might block both ends."""
_Item = TypeVar("_Item")


class Question(NamedTuple):
    """What has one answer."""

    op: Op
    body: bytes
    topic: int = 0
    id: int = 0


def pieces(items: Sequence[_Item]) -> Iterator[Sequence[_Item]]:
    """Yield as many at a time as may be asked for at once."""
    for start in range(0, len(items), _AT_ONCE):
        yield items[start : start + _AT_ONCE]


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
        """Ask what has one answer; errors as of `ask_all`."""
        (answer,) = self.ask_all([Question(op, body, topic, id_)])
        return answer

    def ask_all(self, questions: Sequence[Question]) -> list[Frame]:
        """Ask several at once; returns their answers in this order.

        Raises:
            BackendUnavailableError: the server is gone.
        """
        answers: list[Frame] = []
        for some in pieces(questions):
            answers += self._ask_together(some)
        return answers

    def _ask_together(self, questions: Sequence[Question]) -> list[Frame]:
        wire = self._wire()
        with contextlib.ExitStack() as stack:
            together = [(q, *stack.enter_context(self._asking())) for q in questions]
            with wire.sending:
                wire.check()
                for (op, body, topic, id_), number, asked in together:
                    asked.frame = pack(op, body, n=number, topic=topic, id=id_)
                wire.transmit(b"".join(asked.frame for _, _, asked in together))
            wire.wait(lambda: all(asked.answers for _, _, asked in together))
            return [asked.answers.popleft() for _, _, asked in together]

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
