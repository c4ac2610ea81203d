"""A message to the handlers that want it; their exceptions to error messages."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from rustic_ai.core.errors import PayloadError
from rustic_ai.core.guild.agent.agent import Agent
from rustic_ai.core.guild.agent.context import ProcessContext
from rustic_ai.core.guild.agent.outbox import Outbox
from rustic_ai.core.guild.agent.processor import Processor
from rustic_ai.core.guild.system_messages import ErrorMessage
from rustic_ai.core.guild.topics import GuildTopics
from rustic_ai.core.messaging.core.message import Message
from rustic_ai.core.messaging.core.payload import decode_model

if TYPE_CHECKING:
    import asyncio

logger = logging.getLogger(__name__)


class Dispatcher:
    """Runs the handlers of one agent, one message at a time, on the calling thread.

    ``async`` handlers run to their end on a loop of the agent's own, which lives until `close`.
    """

    def __init__(self, agent: Agent[Any], outbox: Outbox) -> None:
        self._agent = agent
        self._outbox = outbox
        self._loop: asyncio.Runner | None = None
        self._for_any = tuple(p for p in agent.processors if p.format is None)
        formats = {p.format for p in agent.processors if p.format is not None}
        self._by_format = {
            name: tuple(p for p in agent.processors if p.format in {name, None}) for name in formats
        }

    def handle(self, message: Message) -> int:
        """Pass the message to every handler that wants it, in the order of their definition.

        The agent's own messages are not handled, nor, where it acts only when tagged, those that
        do not name it. An exception becomes an error message.

        Returns:
            How many handlers failed.
        """
        agent = self._agent
        failed = 0
        if message.sender.id == agent.id:
            return failed
        if agent.spec.act_only_when_tagged and not message.is_tagged(agent.id, agent.name):
            return failed
        for processor in self._by_format.get(message.format, self._for_any):
            try:
                self._call(processor, message)
            except Exception as e:
                logger.exception("%s.%s failed", agent.name, processor.method)
                self._report(e, message, processor)
                failed += 1
        return failed

    def _call(self, processor: Processor, message: Message) -> None:
        agent = self._agent
        if processor.predicate is not None and not processor.predicate(agent, message):
            return
        payload: Any
        if processor.model is not None:
            payload = _parse(processor.model, message)
        else:
            payload = message.payload
        dependencies = {key: agent.get_dependency(key) for key in processor.depends_on}
        context = ProcessContext(payload, message, agent, self._outbox)
        self.run(getattr(agent, processor.method)(context, **dependencies))

    def run(self, result: Awaitable[None] | None) -> None:
        """Bring the result of a hook or handler to its end, where it is a coroutine."""
        if isinstance(result, Awaitable):
            import asyncio

            if self._loop is None:
                self._loop = asyncio.Runner()
            self._loop.run(_await(result))

    def _report(self, error: Exception, message: Message, processor: Processor) -> None:
        report = ErrorMessage(
            agent_id=self._agent.id,
            agent_name=self._agent.name,
            error_type=type(error).__name__,
            message=str(error),
            traceback="".join(traceback.format_exception(error)),
            processor=processor.method,
            failed_format=message.format,
            failed_message_id=message.id,
        )
        self._outbox.post(report, GuildTopics.ERROR_TOPIC, cause=message, is_error=True)

    def close(self) -> None:
        """End the loop of the async handlers."""
        if self._loop is not None:
            self._loop.close()
            self._loop = None


def _parse(model: type[BaseModel], message: Message) -> BaseModel:
    envelope = message.envelope
    try:
        return decode_model(model, envelope.encoding, envelope.payload)
    except ValidationError as e:
        raise PayloadError(format=message.format, reason=str(e)) from e


async def _await(result: Awaitable[None]) -> None:
    await result
