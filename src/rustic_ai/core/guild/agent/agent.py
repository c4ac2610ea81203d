"""The base class of every agent."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, get_args, get_origin

from pydantic import BaseModel
from typing_extensions import TypeVar

from rustic_ai.core.guild.agent.outbox import Outbox, Payload
from rustic_ai.core.guild.agent.processor import Processor, processors_of
from rustic_ai.core.guild.di.container import DependencyContainer
from rustic_ai.core.guild.spec import AgentSpec, BaseAgentProps
from rustic_ai.core.guild.topics import GuildTopics
from rustic_ai.core.messaging.core.envelope import AgentTag
from rustic_ai.core.messaging.core.message import Message
from rustic_ai.core.messaging.core.priority import Priority

if TYPE_CHECKING:
    from rustic_ai.core.messaging.core.payloads.arrays import Array

PropsT = TypeVar("PropsT", bound=BaseModel, default=BaseAgentProps)


@dataclass(frozen=True, slots=True)
class AgentSetup:
    """What an agent is given before its constructor runs."""

    spec: AgentSpec
    guild_id: str
    dependencies: DependencyContainer
    outbox: Outbox


class Agent(Generic[PropsT]):
    """An actor: it is built where it runs, and handles one message at a time.

    Subclass it, name its properties as ``Agent[MyProps]``, and mark handlers with
    ``@agent.processor``. Identity and configuration are there before ``__init__`` runs, which
    takes no argument, or one: the `AgentSpec`. Hooks and handlers may be ``async``.

    Attributes:
        config: the typed properties.
        logger: named after the agent.
    """

    props_type: ClassVar[type[BaseModel]] = BaseAgentProps
    processors: ClassVar[tuple[Processor, ...]] = ()

    config: PropsT
    logger: logging.Logger
    _setup: AgentSetup

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for base in getattr(cls, "__orig_bases__", ()):
            origin = get_origin(base)
            if isinstance(origin, type) and issubclass(origin, Agent):
                (props,) = get_args(base)[:1]
                if isinstance(props, type) and issubclass(props, BaseModel):
                    cls.props_type = props
        cls.processors = processors_of(cls)

    @classmethod
    def create(cls, setup: AgentSetup) -> Agent[Any]:
        """Build the agent of a spec; for hosts.

        Raises:
            pydantic.ValidationError: the properties are not valid.
            Exception: whatever the constructor raises.
        """
        agent = cls.__new__(cls)
        agent._setup = setup  # noqa: SLF001 - an alternative constructor
        agent.config = cls.props_type.model_validate(setup.spec.properties)  # type: ignore[assignment]
        agent.logger = logging.getLogger(f"rustic_ai.agent.{setup.spec.name}")
        has_own = cls.__init__ is not object.__init__
        takes_spec = has_own and len(inspect.signature(cls.__init__).parameters) > 1
        if takes_spec:
            agent.__init__(setup.spec)  # type: ignore[misc]
        else:
            agent.__init__()  # type: ignore[misc]
        return agent

    @property
    def spec(self) -> AgentSpec:
        """The description it was built from."""
        return self._setup.spec

    @property
    def id(self) -> str:
        """Its id, unique in the guild."""
        return self._setup.spec.id

    @property
    def name(self) -> str:
        """What people call it."""
        return self._setup.spec.name

    @property
    def guild_id(self) -> str:
        """The guild it belongs to."""
        return self._setup.guild_id

    def get_dependency(self, key: str) -> Any:
        """Return a dependency, made on first use.

        Raises:
            MissingDependencyError: neither the agent nor its guild defines `key`.
        """
        return self._setup.dependencies.get(key, wanted_by=f"agent {self.name!r}")

    def allocate(self, shape: int | Sequence[int], dtype: Any = "float64") -> Array:
        """Return a numpy array to fill in place and publish; as `ProcessContext.allocate`."""
        return self._setup.outbox.allocate(shape, dtype)

    def publish(
        self,
        payload: Payload,
        topics: str | Sequence[str] | None = None,
        *,
        format: str | None = None,  # noqa: A002 - the name users write
        recipients: Sequence[AgentTag] = (),
        priority: Priority | None = None,
        ttl: float | None = None,
        store: bool = False,
        pickle: bool = False,
    ) -> Message:
        """Send a message that answers no other; in handlers use `ProcessContext.send`.

        Args:
            payload: as in `ProcessContext.send`.
            topics: default: the guild's default topic.
            format: default: that of the payload.
            recipients: agents to tag.
            priority: default: normal.
            ttl: seconds after which nobody wants it any more.
            store: as in `ProcessContext.send`, like `pickle`.
            pickle: pickle the payload.
        """
        chosen = topics if topics is not None else GuildTopics.DEFAULT_TOPICS
        return self._setup.outbox.post(
            payload,
            chosen,
            format,
            None,
            priority,
            recipients,
            ttl,
            store=store,
            pickle=pickle,
        )

    def on_start(self) -> Awaitable[None] | None:
        """Run once, after the agent was built and subscribed and before its first message."""

    def on_stop(self) -> Awaitable[None] | None:
        """Run once, after its last message; not after a crash."""
