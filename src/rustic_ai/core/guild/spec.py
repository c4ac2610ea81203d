"""Frozen, validated descriptions of agents and guilds: what crosses process borders."""

from __future__ import annotations

import secrets
import unicodedata
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from rustic_ai.core.guild.supervision import (
    NO_LIMITS,
    TEMPORARY,
    ResourceLimits,
    RestartPolicy,
    Strategy,
)
from rustic_ai.core.guild.topics import GuildTopics
from rustic_ai.core.messaging.core.messaging_config import MessagingConfig

DUPLICATE_ID = "duplicate_id"
"""Type of the validation error of a guild in which agents share an id."""


def _printable(text: str) -> str:
    if any(unicodedata.category(character) == "Cc" for character in text):
        raise ValueError("it holds a control character, such as a line break")
    return text


Name = Annotated[str, Field(min_length=1, max_length=256), AfterValidator(_printable)]
Topic = Name


def new_id() -> str:
    """Make an id for an agent or a guild that was given none."""
    return secrets.token_hex(8)


class _Description(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class BaseAgentProps(BaseModel):
    """Base of an agent's typed properties; frozen, and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class DependencySpec(_Description):
    """How an agent gets one of its dependencies: a resolver class that runs beside it, or a value.

    Exactly one of `class_name` and `value` is given; `properties` go with `class_name`.
    """

    class_name: Name | None = Field(
        default=None, description="DependencyResolver class that makes the object in the agent."
    )
    properties: dict[str, Any] = Field(
        default_factory=dict, description="Keyword arguments of the resolver class."
    )
    value: Any = Field(default=None, description="The object itself; must pickle.")

    @model_validator(mode="after")
    def _one_way(self) -> DependencySpec:
        if self.class_name is not None and self.is_value:
            raise ValueError("give either class_name or value, not both")
        if self.class_name is None and not self.is_value:
            raise ValueError("give class_name (a DependencyResolver) or value")
        if self.is_value and self.properties:
            raise ValueError("properties go with class_name, not with value")
        return self

    @property
    def is_value(self) -> bool:
        """Whether the object itself is given."""
        return "value" in self.model_fields_set

    @classmethod
    def of(cls, value: Any) -> DependencySpec:
        """Take a description, or wrap a value."""
        return value if isinstance(value, DependencySpec) else cls(value=value)


class ResourceSpec(_Description):
    """What an agent needs where an engine can place it (Ray); ignored on one machine."""

    num_cpus: Annotated[float, Field(ge=0)] | None = None
    num_gpus: Annotated[float, Field(ge=0)] | None = None
    custom: dict[str, float] = Field(default_factory=dict)


class AgentSpec(_Description):
    """One agent: what it is, what it is given, and what it listens to."""

    id: Name = Field(default_factory=new_id, description="Unique in the guild; made when missing.")
    name: Name = Field(description="What people call it.")
    description: str = Field(default="", description="What it is for.")
    class_name: Name = Field(description="Agent class: 'package.module.Class'.")
    properties: dict[str, Any] = Field(
        default_factory=dict, description="Its typed properties, checked by the class."
    )
    additional_topics: tuple[Topic, ...] = Field(
        default=(), description="Topics to listen to beside the default one."
    )
    listen_to_default_topic: bool = Field(
        default=True, description="Whether it receives what is sent to everybody."
    )
    act_only_when_tagged: bool = Field(
        default=False, description="Whether it ignores messages that do not name it."
    )
    dependency_map: dict[Name, DependencySpec] = Field(
        default_factory=dict, description="Dependencies of its own; they go before the guild's."
    )
    max_attempts: Annotated[int, Field(ge=0, le=255)] = Field(
        default=3,
        description="Crashes with a message in hand after which it is a dead letter; 0: never.",
    )
    error_attempts: Annotated[int, Field(ge=1, le=255)] = Field(
        default=1,
        description="How often a handler that raises is tried until its message is a dead letter.",
    )
    restart_policy: RestartPolicy | None = Field(
        default=None, description="Whether it is started again; default: the guild's."
    )
    limits: ResourceLimits | None = Field(
        default=None, description="What its process may use; default: the guild's."
    )
    resources: ResourceSpec = Field(
        default_factory=ResourceSpec, description="What it needs where it can be placed."
    )

    @property
    def subscribed_topics(self) -> list[str]:
        """Every topic it listens to, its inbox and the guild's system topic among them."""
        topics = [
            GuildTopics.get_agent_inbox(self.id),
            GuildTopics.SYSTEM_TOPIC,
            *(GuildTopics.DEFAULT_TOPICS if self.listen_to_default_topic else ()),
            *self.additional_topics,
        ]
        return list(dict.fromkeys(topics))


class GuildProperties(_Description):
    """How a guild runs."""

    execution_engine: Name = Field(
        default="multiprocess",
        description="'multiprocess', 'sync', or the name of an ExecutionEngine class.",
    )
    max_processes: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="Limit of the multiprocess engine; default: enough for `agents`."
    )
    start_method: Literal["auto", "forkserver", "spawn"] = Field(
        default="auto", description="How the multiprocess engine starts processes."
    )
    preload: tuple[Name, ...] = Field(
        default=(), description="Modules that are imported once, before agents are forked."
    )
    restart_policy: RestartPolicy = Field(
        default=TEMPORARY, description="Whether agents are started again."
    )
    strategy: Strategy = Field(
        default=Strategy.ONE_FOR_ONE, description="Which agents start again when one does."
    )
    limits: ResourceLimits = Field(
        default=NO_LIMITS, description="What an agent's process may use."
    )
    heartbeat_timeout: Annotated[float, Field(gt=0)] | None = Field(
        default=30.0, description="Seconds without a sign of life until an agent is killed."
    )
    handler_timeout: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="Seconds until a handler is taken for endless; default: never."
    )
    messaging: MessagingConfig | None = Field(
        default=None, description="How messages travel; default: the embedded server."
    )


class GuildSpec(_Description):
    """A guild: its agents, what they share, and how it runs."""

    id: Name = Field(default_factory=new_id, description="Names its topics on a shared server.")
    name: Name = Field(default="guild", description="What people call it.")
    description: str = Field(default="", description="What it is for.")
    properties: GuildProperties = Field(default_factory=GuildProperties)
    agents: tuple[AgentSpec, ...] = Field(default=(), description="In the order of their start.")
    dependency_map: dict[Name, DependencySpec] = Field(
        default_factory=dict, description="Dependencies that all agents share."
    )

    @field_validator("agents")
    @classmethod
    def _unique_ids(cls, agents: tuple[AgentSpec, ...]) -> tuple[AgentSpec, ...]:
        for duplicate in duplicate_ids([agent.id for agent in agents]):
            raise PydanticCustomError(DUPLICATE_ID, f"several agents have the id {duplicate!r}")
        return agents


def duplicate_ids(ids: Sequence[str]) -> list[str]:
    """Return the ids that stand in the list more than once, each once, in order."""
    seen: set[str] = set()
    twice: dict[str, None] = {}
    for item in ids:
        if item in seen:
            twice[item] = None
        seen.add(item)
    return list(twice)
