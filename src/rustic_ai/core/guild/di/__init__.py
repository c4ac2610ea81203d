"""Dependencies of agents: described in specs, made beside the agent, closed at its end."""

from rustic_ai.core.guild.di.resolver import DependencyResolver

__all__ = ["DependencyResolver"]
