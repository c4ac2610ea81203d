"""Runs every agent in an operating-system process of its own."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Literal

from rustic_ai.core.errors import (
    AgentStartError,
    DuplicateAgentError,
    EngineClosedError,
    ProcessLimitError,
)
from rustic_ai.core.guild.execution.checks import checked_spec
from rustic_ai.core.guild.execution.engine import MessagingSource
from rustic_ai.core.guild.execution.host import AgentLaunch, declare_places
from rustic_ai.core.guild.execution.multiprocess.boot import PackedLaunch, Surroundings
from rustic_ai.core.guild.execution.multiprocess.health import HealthLimits
from rustic_ai.core.guild.execution.multiprocess.life import Deadlines, make_room_for_files
from rustic_ai.core.guild.execution.multiprocess.log_receiver import LogReceiver
from rustic_ai.core.guild.execution.multiprocess.main_module import refuse_while_importing
from rustic_ai.core.guild.execution.multiprocess.nursery_process import NurserySettings
from rustic_ai.core.guild.execution.multiprocess.runtime import LaunchPad, Runtime
from rustic_ai.core.guild.execution.multiprocess.supervisor import SupervisorSettings
from rustic_ai.core.guild.execution.multiprocess.tracker import MultiProcessAgentTracker
from rustic_ai.core.guild.execution.multiprocess.wrapper import MultiProcessAgentWrapper
from rustic_ai.core.guild.execution.stats import EngineStats, ExitReport
from rustic_ai.core.guild.execution.supervision.engine import SupervisingEngine, shut_down_at_exit
from rustic_ai.core.guild.spec import AgentSpec, GuildSpec
from rustic_ai.core.guild.supervision import (
    NO_LIMITS,
    TEMPORARY,
    ResourceLimits,
    RestartPolicy,
    Strategy,
)
from rustic_ai.core.messaging.core.messaging_config import MessagingConfig

StartMethod = Literal["auto", "forkserver", "spawn"]
_START_METHODS = ("auto", "forkserver", "spawn")
_FILES_PER_AGENT = 3
_OTHER_FILES = 256


class MultiProcessExecutionEngine(SupervisingEngine):
    """Escapes the GIL, isolates crashes, and leaves nothing behind.

    Once an engine exists, `multiprocessing.get_start_method` says 'spawn', unless the program
    chose a method itself. A program that ends without `shutdown` has it called at exit.

    Args:
        guild_id: ID of the guild this engine manages.
        max_processes: maximum number of agent processes; default: the number of CPUs.
        organization_id: passed to dependency resolvers.
        start_method: 'forkserver': agents are forked from a small clean process that has the
            framework loaded, the nursery; 'spawn': each gets a fresh interpreter; 'auto':
            forkserver on Linux, spawn elsewhere. The program itself is never forked.
        preload: modules that the nursery imports beside the framework. Their import effects
            happen once, and are shared by all agents.
        restart_policy: for agents whose spec has none; default: 'temporary', whoever watches
            decides. A policy, its dict, or the name of a restart.
        strategy: which agents are started again when one is.
        limits: for agents whose spec has none.
        start_timeout: seconds from launch to ready.
        stop_timeout: seconds from asking an agent to stop to SIGTERM; SIGKILL a second later.
        heartbeat_timeout: seconds without a sign of life after which an agent is killed, with its
            stacks in the report; None: never. One C call may hold the GIL for seconds.
        handler_timeout: seconds after which a handler is taken for endless; None: never.
        log_forwarding: have agents' log records handled by the handlers of this program, instead
            of on the standard error that they share. Agents never wait for it.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        guild_id: str,
        max_processes: int | None = None,
        *,
        organization_id: str = "",
        start_method: StartMethod = "auto",
        preload: Sequence[str] = (),
        restart_policy: RestartPolicy | str | dict[str, Any] = TEMPORARY,
        strategy: Strategy | str = Strategy.ONE_FOR_ONE,
        limits: ResourceLimits | dict[str, Any] = NO_LIMITS,
        start_timeout: float = Deadlines.start,
        stop_timeout: float = Deadlines.stop,
        heartbeat_timeout: float | None = HealthLimits().heartbeat,
        handler_timeout: float | None = None,
        log_forwarding: bool = False,
    ) -> None:
        super().__init__(guild_id, organization_id)
        if max_processes is not None and max_processes < 1:
            raise ValueError(f"max_processes must be at least 1, not {max_processes}")
        if start_method not in _START_METHODS:
            raise ValueError(f"start_method must be one of {_START_METHODS}, not {start_method!r}")
        if start_method == "forkserver" and sys.platform != "linux":
            raise ValueError("start_method 'forkserver' needs Linux; use 'auto' or 'spawn'")
        self.max_processes = max_processes or os.cpu_count() or 1
        self.tracker = MultiProcessAgentTracker(self.max_processes)
        self._policy = RestartPolicy.of(restart_policy)
        self._limits = ResourceLimits.model_validate(limits)
        self._settings = SupervisorSettings(
            Strategy(strategy),
            Deadlines(start=start_timeout, stop=stop_timeout),
            HealthLimits(heartbeat_timeout, handler_timeout),
        )
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._closed = False
        self._logs = LogReceiver(guild_id) if log_forwarding else None
        self._runtime: Runtime | None = None
        self._pad = LaunchPad(
            NurserySettings(
                guild_id,
                start_method != "spawn",
                tuple(preload),
                self._settings.deadlines.orphan,
                self.tracker.table.fileno(),
                self._logs.fileno() if self._logs is not None else -1,
            )
        )
        if multiprocessing.get_start_method(allow_none=True) is None:
            multiprocessing.set_start_method("spawn")
        self._at_exit: Callable[[], None] | None = shut_down_at_exit(self)

    def _run(self) -> Runtime:
        """Return what the engine runs on, made for its first agent."""
        if self._runtime is None:
            make_room_for_files(_OTHER_FILES + _FILES_PER_AGENT * self.max_processes)
            self._runtime = Runtime(
                self.guild_id, self._pad, self.tracker.table, self._settings, self._logs, self._tell
            )
        return self._runtime

    # Running

    def run_agents(
        self,
        guild_spec: GuildSpec,
        agent_specs: Sequence[AgentSpec],
        messaging_config: MessagingConfig | dict[str, Any] | str,
        *,
        messaging: MessagingSource | None = None,
    ) -> dict[str, Exception]:
        """Start agents at the same time, as `ExecutionEngine.run_agents`."""
        refuse_while_importing()
        config = MessagingConfig.of(messaging_config)
        specs = [checked_spec(guild_spec, spec) for spec in agent_specs]
        now = Surroundings.now()
        packed = [
            PackedLaunch.pack(
                AgentLaunch(guild_spec.id, self.organization_id, spec, guild_spec.dependency_map),
                now,
            )
            for spec in specs
        ]
        wrappers = self._admit(guild_spec.id, packed)
        try:
            joined = self._join(guild_spec.id, config, messaging, specs)
            starts = [(wrapper, wrapper.begin(joined)) for wrapper in wrappers]
            failures = {w.spec.id: error for w, start in starts if (error := _error_of(start))}
        except BaseException:  # Ctrl-C while waiting: no process must stay behind
            for wrapper in wrappers:
                wrapper.kill("its start was interrupted")
            for wrapper in wrappers:
                wrapper.shutdown()
                self._dismiss(guild_spec.id, wrapper)
            raise
        for wrapper in wrappers:
            if wrapper.spec.id in failures:
                self._dismiss(guild_spec.id, wrapper)
        return failures

    def _join(
        self,
        guild_id: str,
        config: MessagingConfig,
        messaging: MessagingSource | None,
        specs: Sequence[AgentSpec],
    ) -> MessagingConfig:
        """Return how agents join the messages; from now on those wait for them."""
        opened = self._messaging(guild_id, config, messaging)
        declare_places(opened, specs)
        return opened.config_for_agents()

    def _admit(
        self, guild_id: str, packed: Sequence[PackedLaunch]
    ) -> list[MultiProcessAgentWrapper]:
        """Reserve places under the limit for all, and list them, in one step or not at all."""
        with self._lock:
            if self._closed:
                raise EngineClosedError(guild_id=self.guild_id)
            ids = [launch.agent.id for launch in packed]
            for agent_id in ids:
                known = self.tracker.get_agent_wrapper(guild_id, agent_id)
                if (known is not None and known.state.is_live) or ids.count(agent_id) > 1:
                    raise DuplicateAgentError(guild_id=guild_id, agent_id=agent_id)
            live = sum(wrapper.state.is_live for wrapper in self.tracker.wrappers())
            if live + len(packed) > self.max_processes:
                raise ProcessLimitError(guild_id=guild_id, limit=self.max_processes)
            return [self._list(guild_id, launch) for launch in packed]

    def _list(self, guild_id: str, packed: PackedLaunch) -> MultiProcessAgentWrapper:
        spec = packed.agent
        supervisor = self._run().supervisor
        known = self.tracker.get_agent_wrapper(guild_id, spec.id)
        if known is not None:
            self._let_go(known)
        wrapper = MultiProcessAgentWrapper(
            packed,
            spec.restart_policy or self._policy,
            spec.limits or self._limits,
            supervisor,
            self.tracker.reserve(guild_id, spec),
        )
        self.tracker.add_agent(guild_id, spec, wrapper)
        return wrapper

    def _dismiss(self, guild_id: str, wrapper: MultiProcessAgentWrapper) -> None:
        """Take an agent off the list, once the supervisor does nothing with it any more."""
        with self._lock:
            if self.tracker.get_agent_wrapper(guild_id, wrapper.spec.id) is wrapper:
                self.tracker.remove_agent(guild_id, wrapper.spec.id)
                self._let_go(wrapper)

    def _let_go(self, wrapper: MultiProcessAgentWrapper) -> None:
        """Give back what a dead agent holds, once the supervisor does nothing with it any more."""
        runtime = self._runtime
        if runtime is not None:
            runtime.reactor.call(lambda: runtime.supervisor.forget(wrapper))
        self.tracker.release(wrapper.place)

    # Ending

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
        if os.getpid() != self._pid:
            return  # a forked copy of the program: nothing of this is its own
        with self._lock:
            self._closed = True
            runtime = self._runtime
        if runtime is not None:
            for gone in runtime.supervisor.stop_all(timeout):
                gone.result()
        with self._lock:  # not before: an interrupted shutdown can be called again
            if self._at_exit is None:
                return
            at_exit, self._at_exit = self._at_exit, None
        if runtime is None:
            self._pad.close()
            if self._logs is not None:
                self._logs.close()
        else:
            for wrapper in self.tracker.wrappers():
                self._let_go(wrapper)
            runtime.close()
        self._close_own_messaging()
        self.tracker.clear()
        atexit.unregister(at_exit)

    def terminate(self) -> None:
        """Send SIGTERM to every agent's process, and SIGKILL soon."""
        for wrapper in self.tracker.wrappers():
            wrapper.terminate()

    def kill(self) -> None:
        """Send SIGKILL to every agent's process."""
        for wrapper in self.tracker.wrappers():
            wrapper.kill("the engine was told to")

    # Asking

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

    def get_exit_report(self, guild_id: str, agent_id: str) -> ExitReport | None:
        """Return how an agent's last process ended; None before one has."""
        wrapper = self.tracker.get_agent_wrapper(guild_id, agent_id)
        return wrapper.exit_report if wrapper is not None else None

    def dump_stacks(self, guild_id: str, agent_id: str) -> str:
        """Return the stacks of all threads of an agent, which goes on as if nothing had happened.

        Works while C code holds the GIL, and on a process that was stopped (SIGSTOP), which goes
        on. Empty for an agent without a process.
        """
        wrapper = self.tracker.get_agent_wrapper(guild_id, agent_id)
        if wrapper is None:
            return ""
        return wrapper.dump_stacks()

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


def _error_of(start: Future[None]) -> Exception | None:
    try:
        start.result()
    except AgentStartError as e:
        return e
    return None
