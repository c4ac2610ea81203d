"""What engines have in common whose agents run in other processes."""

from __future__ import annotations

import atexit
import weakref
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from rustic_ai.core.guild.execution.engine import ExecutionEngine, MessagingSource, raise_all
from rustic_ai.core.guild.execution.stats import AgentEvent
from rustic_ai.core.guild.spec import AgentSpec, GuildSpec
from rustic_ai.core.messaging.core.messaging_config import MessagingConfig


class SupervisingEngine(ExecutionEngine):
    """Starts agents at the same time, and tells what becomes of them."""

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
        """Start an agent's process, and return when the agent is ready.

        As `ExecutionEngine.run_agent`. A first start that fails is raised and leaves nothing
        listed.
        """
        raise_all(self.run_agents(guild_spec, [agent_spec], messaging_config, messaging=messaging))

    @abstractmethod
    def run_agents(
        self,
        guild_spec: GuildSpec,
        agent_specs: Sequence[AgentSpec],
        messaging_config: MessagingConfig | dict[str, Any] | str,
        *,
        messaging: MessagingSource | None = None,
    ) -> dict[str, Exception]:
        """Start agents at the same time, as `ExecutionEngine.run_agents`."""

    def _tell(self, event: AgentEvent) -> None:
        self._tell_event(event)
        if event.report is not None and event.report.was_ready:
            self._tell_exit(event.report)


def shut_down_at_exit(engine: ExecutionEngine) -> Callable[[], None]:
    """Have an engine shut down when the program ends, if it still exists then.

    Returns:
        What `atexit` knows it by.
    """
    reference = weakref.ref(engine)

    def at_exit() -> None:
        alive = reference()
        if alive is not None:
            alive.shutdown()

    atexit.register(at_exit)
    return at_exit
