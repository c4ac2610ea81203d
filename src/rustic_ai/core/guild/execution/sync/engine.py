"""Runs agents in this process, on the threads that bring their messages."""

from __future__ import annotations

import os
import threading
import time
import traceback
from dataclasses import dataclass
from typing import Any

import psutil

from rustic_ai.core.errors import AgentStartError, DuplicateAgentError, EngineClosedError
from rustic_ai.core.guild.execution.checks import checked_spec
from rustic_ai.core.guild.execution.engine import ExecutionEngine, MessagingSource
from rustic_ai.core.guild.execution.host import AgentHost, AgentLaunch
from rustic_ai.core.guild.execution.stats import AgentState, EngineStats, ExitReport, ProcessInfo
from rustic_ai.core.guild.spec import AgentSpec, GuildSpec
from rustic_ai.core.messaging.core.messaging_config import MessagingConfig


@dataclass(frozen=True, slots=True)
class _Hosted:
    spec: AgentSpec
    host: AgentHost
    since: float


class SyncExecutionEngine(ExecutionEngine):
    """No isolation and no parallelism; breakpoints work. Agents cannot crash on their own here."""

    def __init__(self, guild_id: str, organization_id: str = "") -> None:
        super().__init__(guild_id, organization_id)
        self._agents: dict[tuple[str, str], _Hosted] = {}
        self._lock = threading.RLock()
        self._closed = False

    def run_agent(
        self,
        guild_spec: GuildSpec,
        agent_spec: AgentSpec,
        messaging_config: MessagingConfig | dict[str, Any] | str,
        machine_id: int = 0,  # noqa: ARG002 - of the contract
        *,
        messaging: MessagingSource | None = None,
        **kwargs: Any,  # noqa: ARG002 - of the contract
    ) -> None:
        """Start an agent here; as `ExecutionEngine.run_agent`."""
        spec = checked_spec(guild_spec, agent_spec)
        with self._lock:
            if self._closed:
                raise EngineClosedError(guild_id=self.guild_id)
            if (guild_spec.id, spec.id) in self._agents:
                raise DuplicateAgentError(guild_id=guild_spec.id, agent_id=spec.id)
            config = MessagingConfig.of(messaging_config)
            launch = AgentLaunch(
                guild_spec.id, self.organization_id, spec, guild_spec.dependency_map
            )
            host = AgentHost(launch, self._messaging(guild_spec.id, config, messaging))
            try:
                host.start()
            except (Exception, SystemExit) as e:
                raise AgentStartError(
                    agent_id=spec.id,
                    agent_name=spec.name,
                    reason=f"{type(e).__name__}: {e}",
                    remote_traceback="".join(traceback.format_exception(e)),
                ) from e
            self._agents[guild_spec.id, spec.id] = _Hosted(spec, host, time.monotonic())

    def stop_agent(self, guild_id: str, agent_id: str) -> None:
        """Stop an agent, once the message in hand is through."""
        with self._lock:
            hosted = self._agents.pop((guild_id, agent_id), None)
        if hosted is not None:
            hosted.host.stop()
            lived = time.monotonic() - hosted.since
            self._tell_exit(
                ExitReport(
                    agent_id, hosted.spec.name, None, "was stopped", requested=True, lived=lived
                )
            )

    def shutdown(self, timeout: float | None = None) -> None:  # noqa: ARG002 - of the contract
        """Stop all agents, the newest first."""
        with self._lock:
            self._closed = True
            keys = list(reversed(self._agents))
        for key in keys:
            self.stop_agent(*key)
        self._close_own_messaging()

    def terminate(self) -> None:
        """Do nothing: a handler in this process cannot be ended from outside."""

    def kill(self) -> None:
        """Do nothing, as `terminate`."""

    def get_agents_in_guild(self, guild_id: str) -> dict[str, AgentSpec]:
        """Return agent id -> spec."""
        with self._lock:
            return {
                agent: h.spec for (guild, agent), h in self._agents.items() if guild == guild_id
            }

    def is_agent_running(self, guild_id: str, agent_id: str) -> bool:
        """Say whether it is listed: here, that is running."""
        return (guild_id, agent_id) in self._agents

    def get_process_info(self, guild_id: str, agent_id: str) -> dict[str, Any]:
        """Tell of this process, which hosts the agent."""
        hosted = self._agents.get((guild_id, agent_id))
        if hosted is None:
            return {}
        return ProcessInfo(
            pid=os.getpid(),
            is_alive=True,
            name=hosted.spec.name,
            status=AgentState.RUNNING,
            memory_mb=psutil.Process().memory_info().rss / 1e6,
            uptime=time.monotonic() - hosted.since,
        ).as_dict()

    def get_engine_stats(self) -> dict[str, Any]:
        """Return the engine's numbers."""
        with self._lock:
            count, guilds = len(self._agents), len({guild for guild, _ in self._agents})
        return EngineStats(
            engine_type=type(self).__name__,
            guild_id=self.guild_id,
            max_processes=None,
            total_agents=count,
            alive_agents=count,
            total_guilds=guilds,
            active_processes=0,
            owned_agents_count=count,
        ).as_dict()

    def cleanup_dead_processes(self) -> list[AgentSpec]:
        """Return nothing: no agent dies alone here."""
        return []
