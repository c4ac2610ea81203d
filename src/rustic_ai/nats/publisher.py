"""Messages on their way into the stream: many at a time, each once and in order."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

from rustic_ai.core.errors import (
    BackendUnavailableError,
    BackPressureError,
    MessageTooLargeError,
    MessagingError,
)
from rustic_ai.core.messaging.backend.remote import Output
from rustic_ai.nats.client import status_of
from rustic_ai.nats.connection import ANSWER_DEADLINE, Answer, Connection, LinkDownError
from rustic_ai.nats.names import subject_of
from rustic_ai.nats.stream import Stream

OVERHEAD = 256
"""Bytes of a message's headers, and some to spare."""
_WINDOW = 512
"""Messages that may wait for their acknowledgement."""
_WINDOW_BYTES = 16 << 20
_PAUSE = 0.1
_TOO_LARGE = 10054
_NO_ROOM = frozenset({10023, 10028, 10047, 10077, 10122, 10167})
"""What JetStream says when it is out of memory, disk, or patience."""


class Letter(NamedTuple):
    """A message, and the name by which the server knows it again."""

    subject: str
    headers: dict[str, str]
    record: bytes


class Publisher:
    """Stores messages in their order.

    Args:
        connection: to the server.
        stream: where to.
    """

    def __init__(self, connection: Connection, stream: Stream) -> None:
        self._connection = connection
        self._stream = stream
        self._name = secrets.token_hex(8)
        self._count = 0
        self._subjects: dict[str, str] = {}

    def letter(self, output: Output, name: str = "") -> Letter:
        """Give a message its name; default: one that no other message has."""
        if not name:
            self._count += 1
            name = f"{self._name}-{self._count}"
        subject = self._subjects.get(output.topic)
        if subject is None:
            if len(self._subjects) > 10_000:
                self._subjects.clear()
            subject = subject_of(self._stream.name, output.topic)
            self._subjects[output.topic] = subject
        return Letter(subject, {"Nats-Msg-Id": name}, output.record)

    async def store(self, letters: Sequence[Letter]) -> None:
        """Send letters until all are acknowledged; what came through before is not doubled.

        Raises:
            BackendUnavailableError: the server is gone.
            BackPressureError: it has no room.
            MessageTooLargeError: it does not take one of this size.
        """
        patience = self._connection.settings.reconnect_timeout + ANSWER_DEADLINE
        deadline = time.monotonic() + patience
        done = 0
        while done < len(letters):
            await self._connection.ready()
            stored, problem = await self._send(letters[done:])
            if stored:
                deadline = time.monotonic() + patience
            done += stored
            if problem is None:
                continue
            error = problem.as_error(letters[done], self._connection)
            if error is not None:
                raise error
            if time.monotonic() > deadline:
                raise BackendUnavailableError(
                    address=self._connection.settings.address,
                    reason=f"it does not store messages ({problem.text})",
                )
            if self._connection.is_usable:  # it was not the connection: do not hurry
                await asyncio.sleep(_PAUSE)

    async def store_now(self, letter: Letter) -> None:
        """Send one letter, without waiting for a connection.

        Raises:
            LinkDownError: it may not be stored.
            BackPressureError: the server has no room; and what else `store` raises.
        """
        problem = await _outcome(await self._post(letter))
        if problem is not None:
            raise problem.as_error(letter, self._connection) or LinkDownError

    async def _send(self, letters: Sequence[Letter]) -> tuple[int, _Problem | None]:
        """Send until one fails; returns how many are stored before that one, and what it was."""
        waiting: deque[tuple[Answer, int]] = deque()
        stored = size = 0
        problem: _Problem | None = None
        try:
            for letter in letters:
                waiting.append((await self._post(letter), len(letter.record)))
                size += len(letter.record)
                while len(waiting) >= _WINDOW or (size > _WINDOW_BYTES and waiting):
                    answer, length = waiting.popleft()
                    problem = await _outcome(answer)
                    if problem is not None:
                        return stored, problem
                    stored, size = stored + 1, size - length
            while waiting:
                problem = await _outcome(waiting.popleft()[0])
                if problem is not None:
                    return stored, problem
                stored += 1
        except LinkDownError:
            # What was stored before is known again by its name.
            return stored, _Problem(0, "the connection was lost")
        return stored, None

    async def _post(self, letter: Letter) -> Answer:
        return await self._connection.request(letter.subject, letter.record, letter.headers)


class _Problem(NamedTuple):
    """Why a message was not stored; code 0: nobody knows whether it was."""

    code: int
    text: str

    def as_error(self, letter: Letter, connection: Connection) -> MessagingError | None:
        """Return what to raise; None: it may go well in a moment."""
        if self.code == 0 or 500 <= self.code < 600:
            return None
        if self.code == _TOO_LARGE:
            return MessageTooLargeError(
                size=len(letter.record), limit=connection.max_payload - OVERHEAD
            )
        if self.code in _NO_ROOM:
            return BackPressureError(
                reason=f"the NATS server at {connection.settings.address} has no room for "
                f"{letter.subject}: {self.text}",
                hint="give its JetStream more, or the stream a smaller 'max_bytes'",
            )
        return MessagingError(summary=f"NATS does not store a message: {self.text}")


async def _outcome(answer: Answer) -> _Problem | None:
    """Wait for the word on a message; None: it is stored.

    Raises:
        LinkDownError: the connection was lost.
    """
    try:
        message = await Connection.answer(answer)
    except TimeoutError:
        return _Problem(0, "it does not answer")
    if status_of(message) == "503":
        return _Problem(503, "no stream takes it")
    word: dict[str, Any] = json.loads(message.data)
    error = word.get("error")
    if error is None:
        return None
    code = error.get("err_code") or error.get("code", 0)
    return _Problem(code, error.get("description", "no reason"))
