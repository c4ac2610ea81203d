"""What is checked of an agent before anything is started."""

from __future__ import annotations

from pydantic import ValidationError

from rustic_ai.core.class_names import find_class, name_of
from rustic_ai.core.errors import SpecError
from rustic_ai.core.guild.agent.agent import Agent
from rustic_ai.core.guild.di.graph import check_dependencies
from rustic_ai.core.guild.spec import AgentSpec, GuildSpec


def checked_spec(guild_spec: GuildSpec, agent_spec: AgentSpec) -> AgentSpec:
    """Return the spec with its class by importable name, once all of it was found right.

    Raises:
        ClassNotFoundError: no such class, or not an Agent.
        SpecError: its properties are not valid.
        DependencyError: a dependency is missing, or they need each other in a circle.
    """
    agent_class = find_class(agent_spec.class_name, Agent)
    try:
        agent_class.props_type.model_validate(agent_spec.properties)
    except ValidationError as e:
        problems = "; ".join(
            f"properties.{'.'.join(map(str, error['loc']))}: {error['msg']}"
            for error in e.errors(include_url=False)
        )
        raise SpecError(summary=f"agent {agent_spec.name!r}: {problems}") from e
    wanted = {
        key: f"{agent_class.__name__}.{processor.method} of agent {agent_spec.name!r}"
        for processor in agent_class.processors
        for key in processor.depends_on
    }
    check_dependencies(wanted, {**guild_spec.dependency_map, **agent_spec.dependency_map})
    return agent_spec.model_copy(update={"class_name": name_of(agent_class)})
