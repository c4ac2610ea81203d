"""What an engine runs on once it has an agent: reactor, supervisor, and a thread for listeners."""

from __future__ import annotations

from collections.abc import Callable

from rustic_ai.core.guild.execution.stats import AgentEvent
from rustic_ai.core.guild.execution.supervision.event_thread import EventThread
from rustic_ai.core.guild.execution.supervision.reactor import Reactor
from rustic_ai.ray.cluster import Cluster
from rustic_ai.ray.supervisor import ActorSupervisor, Settings


class Running:
    """Runs from construction to `close`.

    Args:
        guild_id: shown in the names of threads.
        cluster: where agents run.
        settings: how agents are looked after.
        tell: called with every change of state, on a thread of its own.
    """

    def __init__(
        self,
        guild_id: str,
        cluster: Cluster,
        settings: Settings,
        tell: Callable[[AgentEvent], None],
    ) -> None:
        self.reactor = Reactor(f"ray-{guild_id}")
        self._events = EventThread(f"ray-{guild_id}", tell)
        self.supervisor = ActorSupervisor(self.reactor, cluster, settings, self._events.put)

    def close(self) -> None:
        """End everything; all agents have ended."""
        self.reactor.call(self.supervisor.close)
        self.reactor.close()
        self._events.close()
