"""What a handler may touch: the message in hand, and the ways to answer it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pydantic import BaseModel

from rustic_ai.core.guild.agent.outbox import Outbox, Payload
from rustic_ai.core.guild.routing import result_topics
from rustic_ai.core.guild.system_messages import GuildFinished, ProgressReport
from rustic_ai.core.guild.topics import GuildTopics
from rustic_ai.core.messaging.core.envelope import AgentTag
from rustic_ai.core.messaging.core.message import Message
from rustic_ai.core.messaging.core.priority import Priority

if TYPE_CHECKING:
    from rustic_ai.core.guild.agent.agent import Agent
    from rustic_ai.core.messaging.core.payloads.arrays import Array

PayloadT = TypeVar("PayloadT")


class ProcessContext(Generic[PayloadT]):
    """One message in the hands of one handler.

    What a handler sends leaves when it has returned, in one piece with the word that its message
    was handled: after a crash in the middle, none of it was sent, and the message comes again.

    Attributes:
        payload: the payload, in the type that the processor asked for.
        message: the whole message.
        agent: the agent that handles it.
    """

    __slots__ = ("_outbox", "agent", "message", "payload")

    def __init__(
        self, payload: PayloadT, message: Message, agent: Agent[Any], outbox: Outbox
    ) -> None:
        self.payload = payload
        self.message = message
        self.agent = agent
        self._outbox = outbox

    def send(
        self,
        payload: Payload,
        *,
        topics: str | Sequence[str] | None = None,
        recipients: Sequence[AgentTag] = (),
        priority: Priority | None = None,
        ttl: float | None = None,
        now: bool = False,
        store: bool = False,
        pickle: bool = False,
    ) -> Message:
        """Send a result; by default to the topics of the message in hand.

        A message that came to the agent's own inbox is answered to its sender's inbox. The payload
        is sent as it is now; what is done to an array after that, the receiver does not see.

        Args:
            payload: a model or a dict, also with arrays in it; bytes, a numpy array, an Arrow table
                or record batch (``docs/payloads.md``); with `pickle` whatever pickles.
            topics: where it goes instead.
            recipients: agents to tag.
            priority: default: that of the message in hand.
            ttl: seconds after which nobody wants it any more.
            now: it leaves at once, not with the others when the handler returns: for handlers that
                run long.
            store: what is large in it is kept with the message, for history and late readers, not
                only for whoever listens now.
            pickle: pickle it, for handlers marked ``@processor(TheClass, pickle=True)``.

        Returns:
            The message that was sent.

        Raises:
            TypeError: the payload cannot travel.
            PickleRefusedError: it is to be pickled, where others than this user could send pickles.
        """
        return self._outbox.post(
            payload,
            topics if topics is not None else self._result_topics(),
            None,
            self.message,
            priority,
            recipients,
            ttl,
            False,
            now,
            store,
            pickle,
        )

    def send_dict(
        self,
        payload: dict[str, Any],
        *,
        format: str | None = None,  # noqa: A002 - the name users write
        topics: str | Sequence[str] | None = None,
        recipients: Sequence[AgentTag] = (),
        priority: Priority | None = None,
        ttl: float | None = None,
        now: bool = False,
        store: bool = False,
    ) -> Message:
        """Send a dict as the result, as plain JSON or as another `format`; else like `send`."""
        return self._outbox.post(
            payload,
            topics if topics is not None else self._result_topics(),
            format,
            self.message,
            priority,
            recipients,
            ttl,
            False,
            now,
            store,
        )

    def allocate(self, shape: int | Sequence[int], dtype: Any = "float64") -> Array:
        """Return a numpy array to fill in place and send: where the messaging can, without a copy.

        What it holds is arbitrary until it is filled. Once it, a view of it, or a payload with it
        was sent it is read-only, for what was sent does not change any more; views of it that were
        made before must not be written to either.
        """
        return self._outbox.allocate(shape, dtype)

    def send_error(self, payload: BaseModel) -> Message:
        """Answer with a model that describes a failure; it also goes to the error topic."""
        topics = self._result_topics()
        return self._outbox.post(
            payload,
            list(dict.fromkeys([*topics, GuildTopics.ERROR_TOPIC])),
            cause=self.message,
            is_error=True,
        )

    def report_progress(self, done: float, total: float | None = None, note: str = "") -> None:
        """Tell whoever runs the guild how far its work is; it leaves at once."""
        report = ProgressReport(done=done, total=total, note=note)
        self._outbox.post(report, GuildTopics.STATUS_TOPIC, cause=self.message, now=True)

    def finish_guild(self, result: dict[str, Any] | None = None, *, success: bool = True) -> None:
        """Tell whoever runs the guild that its work is done, and what came of it."""
        finished = GuildFinished(success=success, result=result or {})
        self._outbox.post(finished, GuildTopics.STATUS_TOPIC, cause=self.message)

    def _result_topics(self) -> Sequence[str]:
        return result_topics(self.message, GuildTopics.get_agent_inbox(self.agent.id))


class LateContext(ProcessContext[Any]):
    """One whose payload is read when the handler asks for it: it may be large, or unreadable."""

    __slots__ = ()

    def __init__(self, message: Message, agent: Agent[Any], outbox: Outbox) -> None:
        self.message = message
        self.agent = agent
        self._outbox = outbox

    @property
    def payload(self) -> Any:
        """The payload as `Message.payload` has it."""
        return self.message.payload
