"""Who decides: which agents start when, and what follows a death."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace

from rustic_ai.core.guild.execution.stats import AgentEvent, AgentState, ExitReport
from rustic_ai.core.guild.execution.supervision.reactor import Action, Reactor, Timer
from rustic_ai.core.guild.execution.supervision.restarts import decide
from rustic_ai.core.guild.supervision import Strategy
from rustic_ai.ray.agent import RayAgent
from rustic_ai.ray.cluster import Cluster
from rustic_ai.ray.life import ActorLife
from rustic_ai.ray.wish import Wish

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings:
    """How agents are looked after; seconds."""

    strategy: Strategy
    start_timeout: float
    stop_timeout: float


class _Cycle:
    """Agents that are started again together, once all their actors are gone."""

    def __init__(self, members: list[RayAgent], ready_at: float) -> None:
        self.members = members
        self.waits_for = {id(m) for m in members if m.life is not None}
        self.ready_at = ready_at


class Supervisor:
    """Looks after the agents of an engine, in the order of their launch.

    Args:
        reactor: where everything happens; all but what says otherwise is for its thread.
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
        self._reactor = reactor
        self._cluster = cluster
        self._settings = settings
        self._tell = tell
        self._agents: list[RayAgent] = []
        self._cycles: list[_Cycle] = []
        self._closing = False
        cluster.directory.attach(self._tell_again)

    def close(self) -> None:
        """Have others told of nothing any more; all agents have ended."""
        self._cluster.directory.detach(self._tell_again)
        for agent in self._agents:
            self._cluster.directory.remove(agent.guild_id, agent.spec.id)

    def _tell_again(self) -> None:
        def tell() -> None:
            for agent in self._agents:
                self._cluster.directory.put(agent.record())

        self._reactor.post(tell)

    def post(self, action: Action) -> None:
        """Have something done on the reactor's thread; from any thread."""
        self._reactor.post(action)

    def after(self, delay: float, action: Action) -> Timer:
        """Have something done in so many seconds."""
        return self._reactor.after(delay, action)

    def launch(self, agent: RayAgent) -> None:
        """Look after an agent, and start its first actor."""
        self._agents.append(agent)
        agent.launch()

    def forget(self, agent: RayAgent) -> None:
        """Look after an agent no more."""
        agent.cancel_plan()
        if agent in self._agents:
            self._agents.remove(agent)
            self._cluster.directory.remove(agent.guild_id, agent.spec.id)

    def stop_all(self, timeout: float) -> list[Future[None]]:
        """Start nothing any more, and stop all agents at once; from any thread.

        Returns:
            What `result()` waits on for each actor to be gone.
        """
        stops: list[Future[None]] = []

        def stop() -> None:
            self._closing = True
            stops.extend(agent.request_stop(timeout) for agent in self._agents)

        self._reactor.call(stop)
        return stops

    def new_life(self, wish: Wish, agent: RayAgent) -> ActorLife:
        """Return an actor to begin."""
        return ActorLife(
            wish,
            agent.generation,
            self._cluster,
            self._reactor,
            self._settings.start_timeout,
            agent,
        )

    def state_changed(self, agent: RayAgent, report: ExitReport | None) -> None:
        """Have everybody told of an agent's new state."""
        record = agent.record()
        self._cluster.directory.put(record)
        if report is not None and report.failed and report.was_ready:
            log = logger.error if report.is_final else logger.warning
            log("%s", report.details())
        self._tell(
            AgentEvent(
                agent.guild_id,
                agent.spec.id,
                agent.spec.name,
                agent.state,
                agent.generation,
                record.pid,
                time.time(),
                report,
            )
        )

    # Deciding

    def decide(self, agent: RayAgent, life: ActorLife, report: ExitReport) -> None:
        """Do what the policy of an agent wants after an end that nobody asked for."""
        now = time.monotonic()
        decision = decide(
            agent.policy,
            agent.history,
            normal=report.exitcode == 0,
            lived=now - life.ready_at if life.ready_at is not None else 0.0,
            now=now,
            chance=random.random(),  # noqa: S311 - spreads restarts
        )
        agent.history = decision.history
        if decision.gives_up:
            self._give_up(agent, report)
        elif decision.delay is None or self._closing:
            agent.end(AgentState.EXITED, report)
        else:
            agent.end(AgentState.BACKOFF, replace(report, restart_in=decision.delay))
            self._restart(agent, decision.delay)

    def _give_up(self, agent: RayAgent, report: ExitReport) -> None:
        agent.end(AgentState.FATAL, replace(report, gave_up=True))
        if agent.policy.on_give_up == "escalate":
            logger.error("agent %r escalates: all agents of its engine end", agent.spec.name)
            for other in list(self._agents):
                if other is not agent:
                    other.request_stop(self._settings.stop_timeout)
        elif agent.policy.quarantine:
            agent.plan_launch(agent.policy.quarantine)

    def _restart(self, agent: RayAgent, delay: float) -> None:
        others = self._affected_by(agent)
        if not others:
            agent.plan_launch(delay)
            return
        cycle = _Cycle(sorted([agent, *others], key=self._agents.index), time.monotonic() + delay)
        self._cycles.append(cycle)
        for other in others:
            other.cycle(self._settings.stop_timeout)
        self._finish_cycle(cycle)

    def _affected_by(self, agent: RayAgent) -> list[RayAgent]:
        if self._settings.strategy is Strategy.ONE_FOR_ONE:
            return []
        first = 0
        if self._settings.strategy is Strategy.REST_FOR_ONE:
            first = self._agents.index(agent) + 1
        live = {AgentState.STARTING, AgentState.RUNNING}
        return [
            other
            for other in self._agents[first:]
            if other is not agent and other.state in live and other.ready.done()
        ]

    def has_cycled(self, agent: RayAgent) -> None:
        """Take note that an actor that was stopped for a restart is gone."""
        for cycle in list(self._cycles):
            cycle.waits_for.discard(id(agent))
            self._finish_cycle(cycle)

    def _finish_cycle(self, cycle: _Cycle) -> None:
        if not cycle.waits_for and cycle in self._cycles:
            self._cycles.remove(cycle)
            delay = max(0.0, cycle.ready_at - time.monotonic())
            for member in cycle.members:
                member.plan_launch(delay)
