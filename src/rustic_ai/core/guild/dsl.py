"""Import path that users of this field already write; the classes live in `spec` and `topics`."""

from rustic_ai.core.guild.spec import (
    AgentSpec,
    BaseAgentProps,
    DependencySpec,
    GuildProperties,
    GuildSpec,
    ResourceSpec,
)
from rustic_ai.core.guild.topics import GuildTopics

__all__ = [
    "AgentSpec",
    "BaseAgentProps",
    "DependencySpec",
    "GuildProperties",
    "GuildSpec",
    "GuildTopics",
    "ResourceSpec",
]
