"""Rustic Multiprocess: guilds of agents, every agent in its own operating-system process."""

from rustic_ai.core._version import __version__

__all__ = ["__version__"]
