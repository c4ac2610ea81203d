"""The contract of everything that runs agents."""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Self

from rustic_ai.core.errors import AgentStartError
from rustic_ai.core.guild.execution.stats import AgentEvent, ExitReport
from rustic_ai.core.guild.spec import AgentSpec, GuildSpec
from rustic_ai.core.messaging.core.messaging_config import MessagingConfig
from rustic_ai.core.messaging.core.messaging_interface import MessagingInterface

logger = logging.getLogger(__name__)

ExitListener = Callable[[ExitReport], None]
EventListener = Callable[[AgentEvent], None]
MessagingSource = Callable[[], MessagingInterface]


def raise_all(failures: dict[str, Exception]) -> None:
    """Raise the only failure of `ExecutionEngine.run_agents`, or all as a group, if any."""
    errors = list(failures.values())
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise ExceptionGroup(f"{len(errors)} agents did not start", errors)


class ExecutionEngine(ABC):
    """Runs agents, and answers for them.

    An agent is known by (guild id, agent id). It stays listed after its death, until it is
    stopped, launched again or cleaned up. Every method may be called from any thread. Asking
    about or stopping an unknown agent is not an error. After `shutdown`, `run_agent` raises
    `EngineClosedError`; queries tell of no agents.

    Args:
        guild_id: the guild that this engine serves.
        organization_id: passed to dependency resolvers.
    """

    def __init__(self, guild_id: str, organization_id: str = "") -> None:
        self.guild_id = guild_id
        self.organization_id = organization_id
        self._exit_listeners: list[ExitListener] = []
        self._event_listeners: list[EventListener] = []
        self._own_messaging: dict[str, MessagingInterface] = {}
        self._messaging_lock = threading.Lock()

    @abstractmethod
    def run_agent(
        self,
        guild_spec: GuildSpec,
        agent_spec: AgentSpec,
        messaging_config: MessagingConfig | dict[str, Any] | str,
        machine_id: int = 0,
        *,
        messaging: MessagingSource | None = None,
        **kwargs: Any,
    ) -> None:
        """Start an agent, and return when it is built, subscribed and ready.

        A message that is published after this returns is received.

        Args:
            guild_spec: its guild: id and shared dependencies.
            agent_spec: the agent.
            messaging_config: how it joins the messages of the guild.
            machine_id: accepted because callers pass one; ids need none (`message_id`).
            messaging: gives the guild's open messages, called once the agent was found right.
                Without it the engine opens them itself, and closes them at `shutdown`.
            kwargs: for engines with more settings.

        Raises:
            SpecError: class, properties or dependencies are wrong; nothing was started.
            NotPicklableError: it cannot travel to where it would run; nothing was started.
            DuplicateAgentError: it already runs.
            ProcessLimitError: the engine runs as many as it may.
            AgentStartError: it did not become ready; with the traceback from where it ran.
            EngineClosedError: after `shutdown`.
        """

    def run_agents(
        self,
        guild_spec: GuildSpec,
        agent_specs: Sequence[AgentSpec],
        messaging_config: MessagingConfig | dict[str, Any] | str,
        *,
        messaging: MessagingSource | None = None,
    ) -> dict[str, Exception]:
        """Start agents, where the engine can at the same time; return when all are ready or failed.

        Arguments as in `run_agent`. Agents that did start go on.

        Returns:
            Agent id -> `AgentStartError` of those that did not become ready.

        Raises:
            GuildError: something is wrong with one of them, or there is no room for all; nothing
                was started, but by an engine that starts them one after another.
        """
        failures: dict[str, Exception] = {}
        for spec in agent_specs:
            try:
                self.run_agent(guild_spec, spec, messaging_config, 0, messaging=messaging)
            except AgentStartError as e:
                failures[spec.id] = e
        return failures

    @abstractmethod
    def stop_agent(self, guild_id: str, agent_id: str) -> None:
        """End an agent and take it off the list; returns when it is gone."""

    @abstractmethod
    def shutdown(self, timeout: float | None = None) -> None:
        """End all agents, all at once under one deadline, and give everything back. Idempotent."""

    @abstractmethod
    def get_agents_in_guild(self, guild_id: str) -> dict[str, AgentSpec]:
        """Return agent id -> spec of all listed agents, dead ones included; changes nothing."""

    @abstractmethod
    def is_agent_running(self, guild_id: str, agent_id: str) -> bool:
        """Say whether the agent is ready and alive."""

    @abstractmethod
    def get_process_info(self, guild_id: str, agent_id: str) -> dict[str, Any]:
        """Return the fields of `ProcessInfo`; an empty dict for an unknown agent."""

    @abstractmethod
    def get_engine_stats(self) -> dict[str, Any]:
        """Return the fields of `EngineStats`."""

    @abstractmethod
    def cleanup_dead_processes(self) -> list[AgentSpec]:
        """Give back what dead agents still hold; they stay listed. Returns their specs."""

    def find_agents_by_name(self, guild_id: str, agent_name: str) -> list[AgentSpec]:
        """Return the listed agents of that name; names need not be unique."""
        agents = self.get_agents_in_guild(guild_id).values()
        return [spec for spec in agents if spec.name == agent_name]

    @abstractmethod
    def terminate(self) -> None:
        """Press a running `shutdown` on: tell every agent's process to end now (SIGTERM)."""

    @abstractmethod
    def kill(self) -> None:
        """Press a running `shutdown` on: end every agent's process (SIGKILL)."""

    def add_exit_listener(self, listener: ExitListener) -> None:
        """Have `listener` called, on a thread of the engine's, with the report of every end."""
        self._exit_listeners.append(listener)

    def add_event_listener(self, listener: EventListener) -> None:
        """Have `listener` called, on a thread of the engine's, with every change of state.

        An engine in whose hands agents neither start nor die alone has nothing to tell.
        """
        self._event_listeners.append(listener)

    def _messaging(
        self, guild_id: str, config: MessagingConfig, source: MessagingSource | None
    ) -> MessagingInterface:
        """Return the messages of the caller, or open our own."""
        if source is not None:
            return source()
        with self._messaging_lock:
            if guild_id not in self._own_messaging:
                self._own_messaging[guild_id] = MessagingInterface(guild_id, config)
                self._own_messaging[guild_id].start()
            return self._own_messaging[guild_id]

    def _close_own_messaging(self) -> None:
        with self._messaging_lock:
            opened = list(self._own_messaging.values())
            self._own_messaging.clear()
        for messaging in opened:
            messaging.close()

    def _tell_exit(self, report: ExitReport) -> None:
        for listener in list(self._exit_listeners):
            try:
                listener(report)
            except Exception:
                logger.exception("a listener failed on the exit of %s", report.agent_name)

    def _tell_event(self, event: AgentEvent) -> None:
        for listener in list(self._event_listeners):
            try:
                listener(event)
            except Exception:
                logger.exception("a listener failed on %s", event)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
