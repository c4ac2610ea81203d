"""Fluent assembly of specs; nothing runs until `GuildBuilder.launch`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError

from rustic_ai.core.class_names import caller_scopes, find_class, name_of
from rustic_ai.core.errors import SpecError
from rustic_ai.core.guild.agent.agent import Agent
from rustic_ai.core.guild.spec import AgentSpec, DependencySpec, GuildProperties, GuildSpec
from rustic_ai.core.messaging.core.messaging_config import MessagingConfig

if TYPE_CHECKING:
    from rustic_ai.core.guild.execution.engine import ExecutionEngine
    from rustic_ai.core.guild.guild import Guild

ModelT = TypeVar("ModelT", bound=BaseModel)


class AgentBuilder:
    """Builds an `AgentSpec` step by step; every setter returns the builder.

    Args:
        agent_class: the class, where it is at hand; otherwise `set_class_name`.

    Raises:
        TypeError: it is no class.
    """

    def __init__(self, agent_class: type[Agent[Any]] | None = None) -> None:
        self._fields: dict[str, Any] = {}
        self._topics: list[str] = []
        self._dependencies: dict[str, DependencySpec] = {}
        if agent_class is not None:
            if not isinstance(agent_class, type):
                raise TypeError(
                    f"AgentBuilder takes the class of an agent, not {agent_class!r}; "
                    "where you have its name: AgentBuilder().set_class_name(...)"
                )
            self._fields["class_name"] = name_of(agent_class)

    def set_id(self, agent_id: str) -> AgentBuilder:
        """Choose the id; otherwise one is made."""
        self._fields["id"] = agent_id
        return self

    def set_name(self, name: str) -> AgentBuilder:
        """Choose what people call it."""
        self._fields["name"] = name
        return self

    def set_description(self, description: str) -> AgentBuilder:
        """Say what it is for."""
        self._fields["description"] = description
        return self

    def set_class_name(self, class_name: str) -> AgentBuilder:
        """Name the class: dotted, ``module:Class``, or bare (see `rustic_ai.core.class_names`)."""
        self._fields["class_name"] = class_name
        return self

    def set_properties(self, properties: BaseModel | Mapping[str, Any]) -> AgentBuilder:
        """Give the typed properties, as their model or as a dict."""
        if isinstance(properties, BaseModel):
            fields = type(properties).model_fields
            self._fields["properties"] = {name: getattr(properties, name) for name in fields}
        else:
            self._fields["properties"] = dict(properties)
        return self

    def add_additional_topic(self, topic: str) -> AgentBuilder:
        """Listen to one more topic."""
        self._topics.append(topic)
        return self

    def listen_to_default_topic(self, listen: bool) -> AgentBuilder:  # noqa: FBT001 - fixed name
        """Say whether it receives what is sent to everybody."""
        self._fields["listen_to_default_topic"] = listen
        return self

    def act_only_when_tagged(self, only: bool) -> AgentBuilder:  # noqa: FBT001 - fixed name
        """Say whether it ignores messages that do not name it."""
        self._fields["act_only_when_tagged"] = only
        return self

    def add_dependency(self, key: str, value: Any) -> AgentBuilder:
        """Give a dependency: any picklable value, or a `DependencySpec`."""
        self._dependencies[key] = DependencySpec.of(value)
        return self

    def add_dependency_resolver(self, key: str, resolver: DependencySpec) -> AgentBuilder:
        """Give a dependency that is made where the agent runs."""
        self._dependencies[key] = resolver
        return self

    def build_spec(self) -> AgentSpec:
        """Return the spec, its class name turned into an importable one and checked.

        Raises:
            ClassNotFoundError: the class is not found, or is not an Agent.
            SpecError: something is missing or wrong; every problem is named.
        """
        for needed, setter in (("name", "set_name"), ("class_name", "set_class_name")):
            if needed not in self._fields:
                raise SpecError(summary=f"the agent has no {needed}", hint=f"call {setter}(...)")
        fields = dict(self._fields)
        fields["class_name"] = name_of(find_class(fields["class_name"], Agent, caller_scopes()))
        return _validated(
            AgentSpec,
            {**fields, "additional_topics": self._topics, "dependency_map": self._dependencies},
        )


class GuildBuilder:
    """Builds a `GuildSpec` step by step, or from a file, and launches it."""

    def __init__(
        self, guild_id: str | None = None, guild_name: str = "guild", guild_description: str = ""
    ) -> None:
        self._fields: dict[str, Any] = {"name": guild_name, "description": guild_description}
        if guild_id is not None:
            self._fields["id"] = guild_id
        self._agents: list[AgentSpec] = []
        self._dependencies: dict[str, DependencySpec] = {}
        self._properties: dict[str, Any] = {}

    @classmethod
    def from_spec(cls, spec: GuildSpec) -> GuildBuilder:
        """Start from a spec."""
        builder = cls(spec.id, spec.name, spec.description)
        builder._agents = list(spec.agents)
        builder._dependencies = dict(spec.dependency_map)
        builder._properties = {
            name: getattr(spec.properties, name) for name in GuildProperties.model_fields
        }
        return builder

    @classmethod
    def from_yaml_file(cls, path: str | Path) -> GuildBuilder:
        """Read a YAML file.

        Raises:
            SpecFileError: names every problem with its line and column.
        """
        from rustic_ai.core.guild.spec_file import read_guild_file

        return cls.from_spec(read_guild_file(Path(path)))

    @classmethod
    def from_json_file(cls, path: str | Path) -> GuildBuilder:
        """Read a JSON file; errors as in `from_yaml_file`."""
        return cls.from_yaml_file(path)

    @classmethod
    def from_spec_yaml(cls, text: str) -> GuildBuilder:
        """Read YAML text; errors as in `from_yaml_file`."""
        from rustic_ai.core.guild.spec_file import read_guild_text

        return cls.from_spec(read_guild_text(text))

    @classmethod
    def from_spec_json(cls, text: str) -> GuildBuilder:
        """Read JSON text; errors as in `from_yaml_file`."""
        return cls.from_spec_yaml(text)

    def set_name(self, name: str) -> GuildBuilder:
        """Choose what people call it."""
        self._fields["name"] = name
        return self

    def set_description(self, description: str) -> GuildBuilder:
        """Say what it is for."""
        self._fields["description"] = description
        return self

    def add_agent_spec(self, spec: AgentSpec) -> GuildBuilder:
        """Add an agent; agents start in this order."""
        self._agents.append(spec)
        return self

    def add_dependency(self, key: str, value: Any) -> GuildBuilder:
        """Give a dependency to all agents: any picklable value, or a `DependencySpec`."""
        self._dependencies[key] = DependencySpec.of(value)
        return self

    def add_dependency_resolver(self, key: str, resolver: DependencySpec) -> GuildBuilder:
        """Give all agents a dependency that is made where each runs."""
        self._dependencies[key] = resolver
        return self

    def set_execution_engine(self, name: str) -> GuildBuilder:
        """Choose 'multiprocess', 'sync', or an ExecutionEngine class by name."""
        self._properties["execution_engine"] = name
        return self

    def set_max_processes(self, limit: int) -> GuildBuilder:
        """Limit the multiprocess engine."""
        self._properties["max_processes"] = limit
        return self

    def set_messaging(self, config: MessagingConfig | Mapping[str, Any] | str) -> GuildBuilder:
        """Choose how messages travel."""
        self._properties["messaging"] = MessagingConfig.of(config)
        return self

    def build_spec(self) -> GuildSpec:
        """Return the spec.

        Raises:
            SpecError: something is wrong; every problem is named.
        """
        return _validated(
            GuildSpec,
            {
                **self._fields,
                "agents": self._agents,
                "dependency_map": self._dependencies,
                "properties": self._properties,
            },
        )

    def launch(self, execution_engine: ExecutionEngine | None = None) -> Guild:
        """Start the guild: all its agents, in order; then tell them that it has begun.

        Raises:
            SpecError: the description is wrong; nothing was started.
            AgentStartError: an agent did not start; those before it were stopped again.
        """
        from rustic_ai.core.guild.guild import Guild

        guild = Guild.from_spec(self.build_spec(), execution_engine=execution_engine)
        try:
            guild.launch_all()
        except BaseException:
            guild.shutdown()
            raise
        return guild


def _validated(model: type[ModelT], fields: dict[str, Any]) -> ModelT:
    try:
        return model.model_validate(fields)
    except ValidationError as e:
        problems = [
            f"{'.'.join(map(str, error['loc'])) or model.__name__}: {error['msg']}"
            for error in e.errors(include_url=False)
        ]
        raise SpecError(summary=f"{model.__name__}: " + "; ".join(problems)) from e
