"""The engine's handle on one agent: its actor now, and those before and after it."""

from __future__ import annotations

import pickle
import time
from typing import TYPE_CHECKING

from rustic_ai.core.guild.execution.supervision.agent import SupervisedAgent
from rustic_ai.core.guild.spec import AgentSpec
from rustic_ai.core.guild.supervision import RestartPolicy
from rustic_ai.ray.directory import Record
from rustic_ai.ray.life import ActorLife
from rustic_ai.ray.wish import Wish

if TYPE_CHECKING:
    from rustic_ai.ray.supervisor import ActorSupervisor


class RayAgent(SupervisedAgent[ActorLife]):
    """Runs one agent, in one actor after another where its policy wants that.

    Args:
        spec: the agent.
        wish: what is to be run, and how.
        policy: whether it is started again.
        supervisor: launches it, and decides after its death.
    """

    def __init__(
        self, spec: AgentSpec, wish: Wish, policy: RestartPolicy, supervisor: ActorSupervisor
    ) -> None:
        super().__init__(wish.guild_id, spec, policy, supervisor)
        self._supervisor: ActorSupervisor = supervisor
        self._wish = wish
        self._pickled_spec = pickle.dumps(spec)
        self._last: ActorLife | None = None
        self._started: float | None = None

    def record(self) -> Record:
        """Return what others are told of it."""
        where = self._last.where if self._last is not None else None
        return Record(
            self.guild_id,
            self.spec.id,
            self.spec.name,
            self._pickled_spec,
            self._wish.actor_name,
            self.state,
            self.generation,
            self.restarts,
            self._started,
            where.pid if where is not None else None,
            where.node if where is not None else "",
            where.node_address if where is not None else "",
            self.exit_report,
        )

    def get_process_id(self) -> int | None:
        """Return the pid of its worker; also of one that has ended."""
        return self.record().pid

    def _new_life(self) -> ActorLife:
        self._started = time.time()
        self._last = self._supervisor.new_life(self._wish, self)
        return self._last
