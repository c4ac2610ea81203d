"""Which actors start when, and where it is told how they are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rustic_ai.core.guild.execution.stats import AgentEvent, AgentState
from rustic_ai.core.guild.execution.supervision.reactor import Reactor
from rustic_ai.core.guild.execution.supervision.supervisor import Supervisor
from rustic_ai.core.guild.supervision import Strategy
from rustic_ai.ray.agent import RayAgent
from rustic_ai.ray.cluster import Cluster
from rustic_ai.ray.life import ActorLife
from rustic_ai.ray.wish import Wish


@dataclass(frozen=True)
class Settings:
    """How agents are looked after; seconds."""

    strategy: Strategy
    start_timeout: float
    stop_timeout: float


class ActorSupervisor(Supervisor[RayAgent]):
    """Looks after agents' actors; Ray says how many fit.

    Args:
        reactor: where everything happens.
        cluster: where actors are made.
        settings: how agents are looked after.
        tell: called with every change of state.
    """

    def __init__(
        self,
        reactor: Reactor,
        cluster: Cluster,
        settings: Settings,
        tell: Callable[[AgentEvent], None],
    ) -> None:
        super().__init__(reactor, settings.strategy, settings.stop_timeout, tell)
        self._cluster = cluster
        self._start_timeout = settings.start_timeout
        cluster.directory.attach(self._tell_again)

    def close(self) -> None:
        """Have others told of nothing any more; all agents have ended."""
        self._cluster.directory.detach(self._tell_again)
        for agent in self._agents:
            self._cluster.directory.remove(agent.guild_id, agent.spec.id)

    def _tell_again(self) -> None:
        def tell() -> None:
            for agent in self._agents:
                self.publish(agent)

        self.post(tell)

    def launch(self, agent: RayAgent) -> None:
        """Start an agent's next actor, unless it was stopped meanwhile."""
        if agent not in self._agents:
            self._agents.append(agent)
        if agent.state is AgentState.STARTING:
            agent.launch()

    def new_life(self, wish: Wish, agent: RayAgent) -> ActorLife:
        """Return an actor to begin."""
        return ActorLife(
            wish, agent.generation, self._cluster, self._reactor, self._start_timeout, agent
        )

    def forget(self, agent: RayAgent) -> None:
        """Look after an agent no more."""
        if agent in self._agents:
            self._cluster.directory.remove(agent.guild_id, agent.spec.id)
        super().forget(agent)

    def publish(self, agent: RayAgent) -> None:
        """Have the programs of the cluster told of an agent."""
        self._cluster.directory.put(agent.record())
