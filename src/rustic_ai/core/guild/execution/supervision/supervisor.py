"""Who decides: what follows a death, and which agents are started again together."""

from __future__ import annotations

import logging
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from typing import Any, Generic, TypeVar

from rustic_ai.core.guild.execution.stats import AgentEvent, AgentState, ExitReport
from rustic_ai.core.guild.execution.supervision.agent import Life, SupervisedAgent
from rustic_ai.core.guild.execution.supervision.reactor import Action, Reactor, Timer
from rustic_ai.core.guild.execution.supervision.restarts import decide
from rustic_ai.core.guild.supervision import Strategy

logger = logging.getLogger(__name__)

AgentT = TypeVar("AgentT", bound=SupervisedAgent[Any])


class _Cycle(Generic[AgentT]):
    """Agents that are started again together, once all their processes are gone."""

    def __init__(self, members: list[AgentT], ready_at: float) -> None:
        self.members = members
        self.waits_for = {id(m) for m in members if m.life is not None}
        self.ready_at = ready_at


class Supervisor(ABC, Generic[AgentT]):
    """Looks after the agents of an engine, in the order of their launch.

    All is for the reactor's thread, but what says otherwise.

    Args:
        reactor: where everything happens.
        strategy: which agents are started again when one is.
        stop_grace: seconds that an agent has to end when asked to.
        tell: called with every change of state.
    """

    def __init__(
        self,
        reactor: Reactor,
        strategy: Strategy,
        stop_grace: float,
        tell: Callable[[AgentEvent], None],
    ) -> None:
        self.strategy = strategy
        self.stop_grace = stop_grace
        self._reactor = reactor
        self._tell = tell
        self._agents: list[AgentT] = []
        self._cycles: list[_Cycle[AgentT]] = []
        self._closing = False

    def post(self, action: Action) -> None:
        """Have something done on the reactor's thread; from any thread."""
        self._reactor.post(action)

    def after(self, delay: float, action: Action) -> Timer:
        """Have something done in so many seconds."""
        return self._reactor.after(delay, action)

    def stop_all(self, timeout: float | None) -> list[Future[None]]:
        """Start nothing any more, and stop all agents at once; from any thread.

        Args:
            timeout: seconds that they have, in place of the usual deadline.

        Returns:
            What `result()` waits on for each process to be gone.
        """
        stops: list[Future[None]] = []

        def stop() -> None:
            self._closing = True
            stops.extend(agent.request_stop(timeout) for agent in self._agents)

        self._reactor.call(stop)
        return stops

    @abstractmethod
    def launch(self, agent: AgentT) -> None:
        """Look after an agent from now on, and start its next process."""

    def relaunch(self, agent: AgentT) -> None:
        """Start an agent's next process, unless it was stopped meanwhile."""
        if agent.state not in {AgentState.BACKOFF, AgentState.FATAL} or self._closing:
            return
        agent.restarts += 1
        agent.expect_launch()
        self.launch(agent)

    def forget(self, agent: AgentT) -> None:
        """Look after an agent no more."""
        agent.cancel_plan()
        if agent in self._agents:
            self._agents.remove(agent)

    # Telling

    @abstractmethod
    def publish(self, agent: AgentT) -> None:
        """Say how an agent is, where others look."""

    def state_changed(self, agent: AgentT, report: ExitReport | None = None) -> None:
        """Have everybody told of an agent's new state."""
        self.publish(agent)
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
                agent.get_process_id(),
                time.time(),
                report,
            )
        )

    # Deciding

    def decide(self, agent: AgentT, life: Life, report: ExitReport) -> None:
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

    def _give_up(self, agent: AgentT, report: ExitReport) -> None:
        agent.end(AgentState.FATAL, replace(report, gave_up=True))
        if agent.policy.on_give_up == "escalate":
            logger.error("agent %r escalates: all agents of its engine end", agent.spec.name)
            for other in list(self._agents):
                if other is not agent:
                    other.request_stop()
        elif agent.policy.quarantine:
            agent.plan_launch(agent.policy.quarantine)

    def _restart(self, agent: AgentT, delay: float) -> None:
        others = self._affected_by(agent)
        if not others:
            agent.plan_launch(delay)
            return
        cycle = _Cycle(sorted([agent, *others], key=self._agents.index), time.monotonic() + delay)
        self._cycles.append(cycle)
        for other in others:
            other.cycle()
        self._finish_cycle(cycle)

    def _affected_by(self, agent: AgentT) -> list[AgentT]:
        if self.strategy is Strategy.ONE_FOR_ONE:
            return []
        first = 0
        if self.strategy is Strategy.REST_FOR_ONE:
            first = self._agents.index(agent) + 1
        live = {AgentState.STARTING, AgentState.RUNNING}
        return [
            other
            for other in self._agents[first:]
            if other is not agent and other.state in live and other.was_ready
        ]

    def has_cycled(self, agent: AgentT) -> None:
        """Take note that a process that was stopped for a restart is gone."""
        for cycle in list(self._cycles):
            cycle.waits_for.discard(id(agent))
            self._finish_cycle(cycle)

    def _finish_cycle(self, cycle: _Cycle[AgentT]) -> None:
        # A life may end while `cycle` stops it: then this was done before `_restart` comes to it.
        if not cycle.waits_for and cycle in self._cycles:
            self._cycles.remove(cycle)
            delay = max(0.0, cycle.ready_at - time.monotonic())
            for member in cycle.members:
                member.plan_launch(delay)
