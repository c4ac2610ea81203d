"""Guilds and agents: everything a user needs to describe and run them."""

from typing import TYPE_CHECKING

from rustic_ai.core._lazy import lazy_exports

if TYPE_CHECKING:
    from rustic_ai.core.guild.agent.agent import Agent
    from rustic_ai.core.guild.agent.context import ProcessContext
    from rustic_ai.core.guild.agent.processor import processor
    from rustic_ai.core.guild.builders import AgentBuilder, GuildBuilder
    from rustic_ai.core.guild.di.resolver import DependencyResolver
    from rustic_ai.core.guild.guild import Guild
    from rustic_ai.core.guild.spec import AgentSpec, BaseAgentProps, DependencySpec, GuildSpec
    from rustic_ai.core.guild.topics import GuildTopics

__all__ = [
    "Agent",
    "AgentBuilder",
    "AgentSpec",
    "BaseAgentProps",
    "DependencyResolver",
    "DependencySpec",
    "Guild",
    "GuildBuilder",
    "GuildSpec",
    "GuildTopics",
    "ProcessContext",
    "processor",
]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "Agent": "rustic_ai.core.guild.agent.agent",
        "AgentBuilder": "rustic_ai.core.guild.builders",
        "AgentSpec": "rustic_ai.core.guild.spec",
        "BaseAgentProps": "rustic_ai.core.guild.spec",
        "DependencyResolver": "rustic_ai.core.guild.di.resolver",
        "DependencySpec": "rustic_ai.core.guild.spec",
        "Guild": "rustic_ai.core.guild.guild",
        "GuildBuilder": "rustic_ai.core.guild.builders",
        "GuildSpec": "rustic_ai.core.guild.spec",
        "GuildTopics": "rustic_ai.core.guild.topics",
        "ProcessContext": "rustic_ai.core.guild.agent.context",
        "processor": "rustic_ai.core.guild.agent.processor",
    },
)
