"""A program's part in the messages of its guild: publish, ask, collect, wait for the end."""

from __future__ import annotations

import queue
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Self, TypeVar

from pydantic import BaseModel

from rustic_ai.core.errors import AgentError, GuildFailedError, RequestTimeoutError
from rustic_ai.core.guild.agent.outbox import Outbox, Payload
from rustic_ai.core.guild.agent.processor import format_of
from rustic_ai.core.guild.execution.stats import ExitReport
from rustic_ai.core.guild.system_messages import ErrorMessage, GuildFinished, ProgressReport
from rustic_ai.core.guild.topics import GuildTopics
from rustic_ai.core.messaging.client.client import SimpleClient
from rustic_ai.core.messaging.core.envelope import AgentTag
from rustic_ai.core.messaging.core.message import Message
from rustic_ai.core.messaging.core.messaging_interface import MessagingInterface

if TYPE_CHECKING:
    from rustic_ai.core.messaging.core.payloads.arrays import Array

_PROGRESS = format_of(ProgressReport)
_FINISHED = format_of(GuildFinished)
_ERROR = format_of(ErrorMessage)
_Event = Message | ExitReport
_MAX_EVENTS = 100
"""Beyond these the death of an agent is not kept for a `wait` that may never come."""
ModelT = TypeVar("ModelT", bound=BaseModel)


class Collector:
    """Collects what a topic gets while its ``with`` block lasts, oldest first."""

    def __init__(self, messaging: MessagingInterface, topic: str) -> None:
        self._messaging = messaging
        self._topic = topic
        self._name = f"collector-{secrets.token_hex(8)}"
        self._queue: queue.SimpleQueue[Message | None] = queue.SimpleQueue()

    def __enter__(self) -> Self:
        self._messaging.subscribe(self._topic, self._queue.put, subscriber=self._name)
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._messaging.unsubscribe(self._topic, subscriber=self._name)
        finally:
            self._queue.put(None)  # ends the iteration of a thread that still waits

    def next(self, timeout: float | None = None) -> Message | None:
        """Wait up to `timeout` seconds for the next message; None where none came."""
        try:
            return self._queue.get(timeout=timeout)
        except queue.Empty:
            return None

    def take(self, count: int, timeout: float) -> list[Message]:
        """Wait up to `timeout` seconds in all for `count` messages.

        Raises:
            RequestTimeoutError: fewer came; they stay to be collected.
        """
        deadline = time.monotonic() + timeout
        found: list[Message] = []
        while len(found) < count:
            message = self.next(max(0.0, deadline - time.monotonic()))
            if message is None:
                for early in found:
                    self._queue.put(early)
                raise RequestTimeoutError(
                    waited_for=f"message {len(found) + 1} of {count} on topic {self._topic!r}",
                    timeout=timeout,
                )
            found.append(message)
        return found

    def __iter__(self) -> Iterator[Message]:
        while (message := self.next()) is not None:
            yield message


class Driver:
    """Speaks for the program in one guild. Safe from any thread.

    Args:
        guild_id: the guild.
        messaging: its messages; stays open.
    """

    def __init__(self, guild_id: str, messaging: MessagingInterface) -> None:
        self._guild_id = guild_id
        self._messaging = messaging
        tag = AgentTag(f"driver-{secrets.token_hex(8)}", "driver")
        self._client = SimpleClient(tag, messaging, self._receive)
        self._outbox = Outbox(self._client)
        self._lock = threading.Lock()
        self._answers: dict[int, Future[Message]] = {}
        self._topics: set[str] = set()
        self._events: queue.SimpleQueue[_Event] = queue.SimpleQueue()
        self._waiting = False
        self._progress: dict[str | None, Message] = {}
        """The last of each agent that came while nobody waited."""
        self._listen(
            GuildTopics.get_agent_inbox(tag.id or ""),
            GuildTopics.STATUS_TOPIC,
            GuildTopics.ERROR_TOPIC,
        )
        messaging.start()

    def _listen(self, *topics: str) -> None:
        with self._lock:
            new = [topic for topic in topics if topic not in self._topics]
            self._topics.update(new)
        for topic in new:
            self._client.subscribe(topic)

    def _receive(self, message: Message) -> None:
        if message.format == _FINISHED:
            self._events.put(message)
        elif message.format == _PROGRESS:
            with self._lock:
                if self._waiting:
                    self._events.put(message)
                else:
                    self._progress[message.sender.id] = message
        if message.in_response_to is not None:
            with self._lock:
                answer = self._answers.pop(message.in_response_to, None)
            if answer is not None:
                answer.set_result(message)

    def publish(self, payload: Payload, topics: str | Sequence[str], **options: Any) -> Message:
        """Send a message; returns it once it was accepted."""
        return self._outbox.post(payload, topics, **options)

    def allocate(self, shape: int | Sequence[int], dtype: Any) -> Array:
        """Return an array to fill and send; see `ProcessContext.allocate`."""
        return self._outbox.allocate(shape, dtype)

    def unpickle(self, message: Message) -> Any:
        """Return the payload of a message, pickled or not.

        Raises:
            PickleRefusedError: it is pickled, and the messaging is not `trusted`.
        """
        from rustic_ai.core.messaging.core.payloads.reading import payload_as

        return payload_as(message, object, pickle=True, trusted=self._outbox.trusted)

    def request(
        self,
        payload: Payload,
        topics: str | Sequence[str],
        timeout: float,
        **options: Any,
    ) -> Message:
        """Send a message and return the first answer to it.

        Raises:
            AgentError: the handler failed.
            RequestTimeoutError: nobody answered within `timeout` seconds.
        """
        self._listen(*([topics] if isinstance(topics, str) else topics))
        question = self._outbox.compose(payload, topics, **options)
        answer: Future[Message] = Future()
        with self._lock:
            self._answers[question.id] = answer
        try:
            self._outbox.send(question)
            message = answer.result(timeout)
        except TimeoutError as e:
            raise RequestTimeoutError(
                waited_for=f"an answer to {question!r}",
                timeout=timeout,
            ) from e
        finally:
            with self._lock:
                self._answers.pop(question.id, None)
        if message.format == _ERROR:
            raise _agent_error(message)
        return message

    def collect(self, topic: str) -> Collector:
        """Return a collector for a topic."""
        return Collector(self._messaging, topic)

    def agent_failed(self, report: ExitReport) -> None:
        """Take note that an agent died."""
        if self._events.qsize() < _MAX_EVENTS:
            self._events.put(report)

    def wait(
        self,
        timeout: float | None,
        on_progress: Callable[[ProgressReport, AgentTag], None] | None,
    ) -> GuildFinished:
        """Wait until an agent says that the work is done; one thread at a time.

        Raises:
            RequestTimeoutError: it took longer than `timeout` seconds.
            GuildFailedError: an agent died.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        if on_progress is not None:
            with self._lock:
                self._waiting = True
                missed, self._progress = self._progress, {}
            for event in missed.values():
                on_progress(_decoded(ProgressReport, event), event.sender)
        try:
            while (event := self._next_event(deadline, timeout)).format != _FINISHED:
                if on_progress is not None:
                    on_progress(_decoded(ProgressReport, event), event.sender)
        finally:
            self._waiting = False
        return _decoded(GuildFinished, event)

    def _next_event(self, deadline: float | None, timeout: float | None) -> Message:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        try:
            event = self._events.get(timeout=left)
        except queue.Empty:
            raise RequestTimeoutError(
                waited_for=f"the end of guild {self._guild_id!r}", timeout=timeout or 0.0
            ) from None
        if isinstance(event, ExitReport):
            raise GuildFailedError(guild_id=self._guild_id, endings=[str(event)])
        return event


def _decoded(model: type[ModelT], message: Message) -> ModelT:
    return model.model_validate(message.payload)


def _agent_error(message: Message) -> AgentError:
    failure = _decoded(ErrorMessage, message)
    return AgentError(
        agent_name=failure.agent_name,
        error_type=failure.error_type,
        message=failure.message,
        remote_traceback=failure.traceback,
    )
