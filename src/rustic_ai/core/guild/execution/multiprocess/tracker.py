"""Which agent runs where: the engine's list, and the table that shows it to every process."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from pydantic_core import to_json

from rustic_ai.core.errors import EngineError
from rustic_ai.core.guild.execution.multiprocess.attached import AttachedTracker
from rustic_ai.core.guild.execution.multiprocess.table import Place, SharedTable
from rustic_ai.core.guild.spec import AgentSpec

if TYPE_CHECKING:
    from rustic_ai.core.guild.execution.multiprocess.wrapper import MultiProcessAgentWrapper

_SPARE_SLOTS = 1024


class MultiProcessAgentTracker:
    """The agents of an engine by (guild id, agent id), dead ones included.

    Every method may be called from any thread. The tracker starts and stops nothing.

    Args:
        agents: how many agents may run; about as many dead ones may be listed beside them.
    """

    def __init__(self, agents: int = 0) -> None:
        self._lock = threading.RLock()
        self._agents: dict[tuple[str, str], tuple[AgentSpec, MultiProcessAgentWrapper]] = {}
        self._info: dict[tuple[str, str], dict[str, Any]] = {}
        self._slots = 2 * agents + _SPARE_SLOTS
        self._table: SharedTable | None = None
        self._free: list[int] = []

    @classmethod
    def attach(cls, guild_id: str) -> AttachedTracker:
        """Look at a guild of any program of this user, read-only, without asking it.

        From anywhere: an agent, another program. Close it after use, or use it in a ``with``.

        Args:
            guild_id: as given to the engine.

        Raises:
            EngineError: no such guild runs here, or this is not Linux.
        """
        return AttachedTracker.find(guild_id)

    # The table

    @property
    def table(self) -> SharedTable:
        """The shared table, made when first wanted."""
        with self._lock:
            if self._table is None:
                self._table = SharedTable.create(self._slots)
                self._free = list(range(self._slots - 1, -1, -1))
            return self._table

    def reserve(self, guild_id: str, agent_spec: AgentSpec) -> Place:
        """Give an agent a place in the table.

        Raises:
            EngineError: too many dead agents are listed.
        """
        with self._lock:
            table = self.table
            if not self._free:
                raise EngineError(
                    summary=f"{self._slots} agents are listed, most of them dead: no room for more",
                    hint="take dead ones off the list with stop_agent()",
                )
            slot = self._free.pop()
            text = to_json({"guild_id": guild_id, "spec": agent_spec}, fallback=repr)
            return Place(slot, table.put_text(text), table.cells(slot))

    def release(self, place: Place) -> None:
        """Take a place back."""
        with self._lock:
            place.cells.release()
            if self._table is not None:
                self._table.clear(place.slot)
                self._table.drop_text(place.text)
                self._free.append(place.slot)

    # The list

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
        """Return the numbers of `EngineStats` that are about agents."""
        with self._lock:
            keys, wrappers = list(self._agents), [w for _, w in self._agents.values()]
        states: dict[str, int] = {}
        for wrapper in wrappers:
            states[str(wrapper.state)] = states.get(str(wrapper.state), 0) + 1
        return {
            "total_agents": len(keys),
            "alive_agents": sum(wrapper.is_alive() for wrapper in wrappers),
            "total_guilds": len({guild for guild, _ in keys}),
            "active_processes": sum(wrapper.life is not None for wrapper in wrappers),
            "states": states,
            "restarts": sum(wrapper.restarts for wrapper in wrappers),
        }

    def clear(self) -> None:
        """Take all agents off the list, and give the table back; their processes have ended."""
        with self._lock:
            self._agents.clear()
            self._info.clear()
            if self._table is not None:
                self._table.close()
                self._table = None
