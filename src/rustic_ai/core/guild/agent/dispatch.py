"""A message to the handlers that want it; their exceptions to error messages."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeGuard

from pydantic import BaseModel, ValidationError

from rustic_ai.core.errors import PayloadError, ProtocolError
from rustic_ai.core.guild.agent.agent import Agent
from rustic_ai.core.guild.agent.context import LateContext, ProcessContext
from rustic_ai.core.guild.agent.outbox import Outbox
from rustic_ai.core.guild.agent.processor import Predicate
from rustic_ai.core.guild.system_messages import ErrorMessage
from rustic_ai.core.guild.topics import GuildTopics
from rustic_ai.core.messaging.core.message import Message
from rustic_ai.core.messaging.core.payload import Encoding, decode_model, json_parser_of

if TYPE_CHECKING:
    import asyncio

logger: Final = logging.getLogger(__name__)
_JSON: Final = Encoding.JSON


@dataclass(slots=True, eq=False)
class _Handler:
    """A processor, bound to its agent."""

    method: Callable[..., Awaitable[None] | None]
    name: str
    wanted: type | None
    parse_json: Callable[[bytes], BaseModel] | None
    """The model's validator, where it is complete and need not be looked up each time."""
    predicate: Predicate | None
    depends_on: tuple[str, ...]
    pickle: bool


class Dispatcher:
    """Runs the handlers of one agent, one message at a time, on the calling thread.

    ``async`` handlers run to their end on a loop of the agent's own, which lives until `close`.
    """

    def __init__(self, agent: Agent[Any], outbox: Outbox) -> None:
        self._agent = agent
        self._outbox = outbox
        self._loop: asyncio.Runner | None = None
        self._id = agent.id
        self._only_tagged = agent.spec.act_only_when_tagged
        self._error_attempts = agent.spec.error_attempts
        formats = {p.format for p in agent.processors}
        self._by_format = {name: self._bound(name) for name in formats}
        self._for_any = self._bound(None)

    def _bound(self, format_name: str | None) -> tuple[_Handler, ...]:
        """Return the handlers of a format, in the order of their definition."""
        return tuple(
            _Handler(
                getattr(self._agent, p.method),
                p.method,
                p.wanted,
                json_parser_of(p.wanted) if _is_model(p.wanted) else None,
                p.predicate,
                p.depends_on,
                p.pickle,
            )
            for p in self._agent.processors
            if p.format in {format_name, None}
        )

    def handle(self, message: Message) -> int:
        """Pass the message to every handler that wants it, in the order of their definition.

        The agent's own messages are not handled, nor, where it acts only when tagged, those that
        do not name it. A handler that raises is tried again as often as the agent's spec says;
        then the exception becomes an error message, and the message a dead letter.

        Returns:
            How many handlers failed.
        """
        failed = 0
        try:
            envelope = message.envelope
        except ProtocolError:
            logger.exception("%s skips what is no message", self._agent.name)
            return failed
        if envelope.sender.id == self._id:
            return failed
        if self._only_tagged and not message.is_tagged(self._id, self._agent.name):
            return failed
        for handler in self._by_format.get(envelope.format, self._for_any):
            try:
                self._call(handler, message)
            except Exception as e:  # noqa: BLE001 - logged and told by `_try_again`
                failed += not self._try_again(handler, message, e)
        return failed

    def _call(self, handler: _Handler, message: Message) -> None:
        agent = self._agent
        if handler.predicate is not None and not handler.predicate(agent, message):
            return
        envelope, parse_json = message.envelope, handler.parse_json
        context: ProcessContext[Any]
        if parse_json is not None and envelope.encoding is _JSON:
            try:
                payload = parse_json(envelope.payload)
            except ValidationError as e:
                raise PayloadError(format=message.format, reason=str(e)) from e
            context = ProcessContext(payload, message, agent, self._outbox)
        elif handler.wanted is not None:
            payload = _parse(handler, message, self._outbox)
            context = ProcessContext(payload, message, agent, self._outbox)
        elif envelope.encoding <= _JSON:
            context = ProcessContext(message.payload, message, agent, self._outbox)
        else:
            context = LateContext(message, agent, self._outbox)
        if handler.depends_on:
            dependencies = {key: agent.get_dependency(key) for key in handler.depends_on}
            result = handler.method(context, **dependencies)
        else:
            result = handler.method(context)
        if result is not None:
            self.run(result)

    def _try_again(self, handler: _Handler, message: Message, error: Exception) -> bool:
        """Run a handler that has raised until it succeeds, or was tried often enough."""
        tries = 1
        while True:
            logger.error("%s.%s failed", self._agent.name, handler.name, exc_info=error)
            if tries == self._error_attempts:
                self._report(error, message, handler)
                self._outbox.bury(message, f"{type(error).__name__}: {error}", message.attempt)
                return False
            tries += 1
            message.attempt += 1
            try:
                self._call(handler, message)
            except Exception as e:  # noqa: BLE001 - logged above
                error = e
            else:
                return True

    def run(self, result: Awaitable[None] | None) -> None:
        """Bring the result of a hook or handler to its end, where it is a coroutine."""
        if isinstance(result, Awaitable):
            import asyncio

            if self._loop is None:
                self._loop = asyncio.Runner()
            self._loop.run(_await(result))

    def _report(self, error: Exception, message: Message, handler: _Handler) -> None:
        report = ErrorMessage(
            agent_id=self._agent.id,
            agent_name=self._agent.name,
            error_type=type(error).__name__,
            message=str(error),
            traceback="".join(traceback.format_exception(error)),
            processor=handler.name,
            failed_format=message.format,
            failed_message_id=message.id,
        )
        self._outbox.post(report, GuildTopics.ERROR_TOPIC, cause=message, is_error=True)

    def close(self) -> None:
        """End the loop of the async handlers."""
        if self._loop is not None:
            self._loop.close()
            self._loop = None


def _is_model(wanted: type | None) -> TypeGuard[type[BaseModel]]:
    return wanted is not None and issubclass(wanted, BaseModel)


def _parse(handler: _Handler, message: Message, outbox: Outbox) -> Any:
    """Return the payload as the handler wants it.

    Raises:
        PayloadError: it is something else, is lost, or is a pickle that is not wanted.
    """
    envelope, wanted = message.envelope, handler.wanted
    try:
        if envelope.encoding <= _JSON and _is_model(wanted):
            return decode_model(wanted, envelope.encoding, envelope.payload)
    except ValidationError as e:
        raise PayloadError(format=message.format, reason=str(e)) from e
    from rustic_ai.core.messaging.core.payloads.reading import payload_as

    assert wanted is not None
    return payload_as(message, wanted, pickle=handler.pickle, trusted=outbox.trusted)


async def _await(result: Awaitable[None]) -> None:
    await result
