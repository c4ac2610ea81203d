"""Which agent runs where."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from rustic_ai.core.guild.spec import AgentSpec

if TYPE_CHECKING:
    from rustic_ai.core.guild.execution.multiprocess.wrapper import MultiProcessAgentWrapper


class MultiProcessAgentTracker:
    """The agents of an engine by (guild id, agent id), dead ones included.

    Every method may be called from any thread. The tracker starts and stops nothing.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._agents: dict[tuple[str, str], tuple[AgentSpec, MultiProcessAgentWrapper]] = {}
        self._info: dict[tuple[str, str], dict[str, Any]] = {}

    def add_agent(
        self, guild_id: str, agent_spec: AgentSpec, wrapper: MultiProcessAgentWrapper
    ) -> None:
        """List an agent, in place of an earlier one of the same id."""
        with self._lock:
            self._agents[guild_id, agent_spec.id] = (agent_spec, wrapper)

    def remove_agent(self, guild_id: str, agent_id: str) -> None:
        """Take an agent off the list; not an error where it is not on it."""
        with self._lock:
            self._agents.pop((guild_id, agent_id), None)
            self._info.pop((guild_id, agent_id), None)

    def update_process_info(self, guild_id: str, agent_id: str) -> None:
        """Look at the agent's process now, for `get_process_info`."""
        wrapper = self.get_agent_wrapper(guild_id, agent_id)
        if wrapper is not None:
            info = wrapper.get_process_info().as_dict()
            with self._lock:
                self._info[guild_id, agent_id] = info

    def get_process_info(self, guild_id: str, agent_id: str) -> dict[str, Any]:
        """Return what `update_process_info` saw last; empty for an unknown agent."""
        with self._lock:
            return dict(self._info.get((guild_id, agent_id), {}))

    def get_agent_spec(self, guild_id: str, agent_id: str) -> AgentSpec | None:
        """Return an agent's spec."""
        entry = self._agents.get((guild_id, agent_id))
        return entry[0] if entry else None

    def get_agent_wrapper(self, guild_id: str, agent_id: str) -> MultiProcessAgentWrapper | None:
        """Return the handle on an agent's process."""
        entry = self._agents.get((guild_id, agent_id))
        return entry[1] if entry else None

    def get_agents_in_guild(self, guild_id: str) -> dict[str, AgentSpec]:
        """Return agent id -> spec."""
        with self._lock:
            return {a: spec for (g, a), (spec, _) in self._agents.items() if g == guild_id}

    def is_agent_alive(self, guild_id: str, agent_id: str) -> bool:
        """Say whether the agent's process runs."""
        wrapper = self.get_agent_wrapper(guild_id, agent_id)
        return wrapper is not None and wrapper.is_alive()

    def wrappers(self) -> list[MultiProcessAgentWrapper]:
        """Return the handles of all agents."""
        with self._lock:
            return [wrapper for _, wrapper in self._agents.values()]

    def get_stats(self) -> dict[str, Any]:
        """Return `total_agents`, `alive_agents`, `total_guilds` and `active_processes`."""
        with self._lock:
            keys, wrappers = list(self._agents), [w for _, w in self._agents.values()]
        return {
            "total_agents": len(keys),
            "alive_agents": sum(wrapper.is_alive() for wrapper in wrappers),
            "total_guilds": len({guild for guild, _ in keys}),
            "active_processes": sum(wrapper.state.is_live for wrapper in wrappers),
        }

    def clear(self) -> None:
        """Take all agents off the list."""
        with self._lock:
            self._agents.clear()
            self._info.clear()
