"""Runs every agent in an operating-system process of its own."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import threading
import weakref
from typing import Any

from rustic_ai.core.errors import DuplicateAgentError, EngineClosedError, ProcessLimitError
from rustic_ai.core.guild.execution.checks import checked_spec
from rustic_ai.core.guild.execution.engine import ExecutionEngine, MessagingSource
from rustic_ai.core.guild.execution.host import AgentLaunch
from rustic_ai.core.guild.execution.multiprocess.boot import PackedLaunch
from rustic_ai.core.guild.execution.multiprocess.launchers import Launcher, SpawnLauncher
from rustic_ai.core.guild.execution.multiprocess.main_module import refuse_while_importing
from rustic_ai.core.guild.execution.multiprocess.supervisor import Supervisor
from rustic_ai.core.guild.execution.multiprocess.tracker import MultiProcessAgentTracker
from rustic_ai.core.guild.execution.multiprocess.wrapper import Deadlines, MultiProcessAgentWrapper
from rustic_ai.core.guild.execution.stats import EngineStats
from rustic_ai.core.guild.spec import AgentSpec, GuildSpec
from rustic_ai.core.messaging.core.messaging_config import MessagingConfig


class MultiProcessExecutionEngine(ExecutionEngine):
    """Escapes the GIL, isolates crashes, and leaves nothing behind.

    Once an engine exists, `multiprocessing.get_start_method` says 'spawn', unless the program
    chose a method itself. A program that ends without `shutdown` has it called at exit.

    Args:
        guild_id: ID of the guild this engine manages.
        max_processes: maximum number of agent processes; default: the number of CPUs.
        organization_id: passed to dependency resolvers.
        start_timeout: seconds from launch to ready.
        stop_timeout: seconds from asking an agent to stop to SIGTERM; SIGKILL a second later.

    Raises:
        ValueError: `max_processes` is less than 1.
    """

    def __init__(
        self,
        guild_id: str,
        max_processes: int | None = None,
        *,
        organization_id: str = "",
        start_timeout: float = Deadlines.start,
        stop_timeout: float = Deadlines.stop,
    ) -> None:
        super().__init__(guild_id, organization_id)
        if max_processes is not None and max_processes < 1:
            raise ValueError(f"max_processes must be at least 1, not {max_processes}")
        self.max_processes = max_processes or os.cpu_count() or 1
        self.tracker = MultiProcessAgentTracker()
        self._deadlines = Deadlines(start=start_timeout, stop=stop_timeout)
        self._launcher: Launcher = SpawnLauncher()
        self._lock = threading.Lock()
        self._closed = False
        self._supervisor: Supervisor | None = None
        if multiprocessing.get_start_method(allow_none=True) is None:
            multiprocessing.set_start_method("spawn")
        self._at_exit = _shut_down_at_exit(self)

    def run_agent(
        self,
        guild_spec: GuildSpec,
        agent_spec: AgentSpec,
        messaging_config: MessagingConfig | dict[str, Any],
        machine_id: int = 0,  # noqa: ARG002 - of the contract
        *,
        messaging: MessagingSource | None = None,
        **kwargs: Any,  # noqa: ARG002 - of the contract
    ) -> None:
        """Start an agent's process, and return when the agent is ready.

        As `ExecutionEngine.run_agent`. A first start that fails is raised and leaves nothing
        listed.
        """
        refuse_while_importing()
        config = MessagingConfig.of(messaging_config)
        spec = checked_spec(guild_spec, agent_spec)
        packed = PackedLaunch.pack(
            AgentLaunch(guild_spec.id, self.organization_id, spec, guild_spec.dependency_map)
        )
        wrapper = self._admit(guild_spec.id, packed)
        try:
            wrapper.run(self._messaging(guild_spec.id, config, messaging).config_for_agents())
        except BaseException:
            wrapper.abandon()
            self._dismiss(guild_spec.id, wrapper)
            raise

    def _admit(self, guild_id: str, packed: PackedLaunch) -> MultiProcessAgentWrapper:
        """Reserve a place under the limit and list the agent, in one step."""
        agent_id = packed.agent.id
        with self._lock:
            if self._closed:
                raise EngineClosedError(guild_id=self.guild_id)
            known = self.tracker.get_agent_wrapper(guild_id, agent_id)
            if known is not None and known.state.is_live:
                raise DuplicateAgentError(guild_id=guild_id, agent_id=agent_id)
            live = sum(wrapper.state.is_live for wrapper in self.tracker.wrappers())
            if live >= self.max_processes:
                raise ProcessLimitError(guild_id=guild_id, limit=self.max_processes)
            if self._supervisor is None:
                self._supervisor = Supervisor(self.guild_id)
            wrapper = MultiProcessAgentWrapper(
                packed, self._launcher, self._supervisor, self._deadlines, self._tell_exit
            )
            self.tracker.add_agent(guild_id, packed.agent, wrapper)
            return wrapper

    def _dismiss(self, guild_id: str, wrapper: MultiProcessAgentWrapper) -> None:
        with self._lock:
            if self.tracker.get_agent_wrapper(guild_id, wrapper.spec.id) is wrapper:
                self.tracker.remove_agent(guild_id, wrapper.spec.id)

    def stop_agent(self, guild_id: str, agent_id: str) -> None:
        """Stop an agent's process and take it off the list; returns when it is gone."""
        wrapper = self.tracker.get_agent_wrapper(guild_id, agent_id)
        if wrapper is not None:
            wrapper.shutdown()
            self._dismiss(guild_id, wrapper)

    def shutdown(self, timeout: float | None = None) -> None:
        """Stop all agents at once: ask, SIGTERM, SIGKILL; returns when all are gone.

        Args:
            timeout: seconds from asking to SIGTERM, in place of `stop_timeout`.
        """
        with self._lock:
            self._closed = True
        for gone in [wrapper.request_stop(timeout) for wrapper in self.tracker.wrappers()]:
            gone.result()
        with self._lock:  # not before: an interrupted shutdown can be called again
            supervisor, self._supervisor = self._supervisor, None
        if supervisor is not None:
            supervisor.close()
        self._close_own_messaging()
        self.tracker.clear()
        atexit.unregister(self._at_exit)

    def terminate(self) -> None:
        """Send SIGTERM to every agent's process, and SIGKILL soon."""
        for wrapper in self.tracker.wrappers():
            wrapper.terminate()

    def kill(self) -> None:
        """Send SIGKILL to every agent's process."""
        for wrapper in self.tracker.wrappers():
            wrapper.kill("the engine was told to")

    def get_agents_in_guild(self, guild_id: str) -> dict[str, AgentSpec]:
        """Return agent id -> spec, dead agents included."""
        return self.tracker.get_agents_in_guild(guild_id)

    def is_agent_running(self, guild_id: str, agent_id: str) -> bool:
        """Say whether the agent is ready and its process lives."""
        return self.tracker.is_agent_alive(guild_id, agent_id)

    def get_process_info(self, guild_id: str, agent_id: str) -> dict[str, Any]:
        """Look at an agent's process now."""
        self.tracker.update_process_info(guild_id, agent_id)
        return self.tracker.get_process_info(guild_id, agent_id)

    def get_engine_stats(self) -> dict[str, Any]:
        """Return the engine's numbers."""
        counts = self.tracker.get_stats()
        return EngineStats(
            engine_type=type(self).__name__,
            guild_id=self.guild_id,
            max_processes=self.max_processes,
            owned_agents_count=counts["alive_agents"],
            **counts,
        ).as_dict()

    def cleanup_dead_processes(self) -> list[AgentSpec]:
        """Return the specs of dead agents; they stay listed.

        Processes are reaped and places under the limit freed at the moment of death, so nothing
        else is left to do.
        """
        return [w.spec for w in self.tracker.wrappers() if not w.state.is_live]


def _shut_down_at_exit(engine: MultiProcessExecutionEngine) -> Any:
    reference = weakref.ref(engine)

    def at_exit() -> None:
        alive = reference()
        if alive is not None:
            alive.shutdown()

    atexit.register(at_exit)
    return at_exit
