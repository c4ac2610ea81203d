"""Who decides: which agents start when, what follows a death, who hangs and is killed for it."""

from __future__ import annotations

import logging
import random
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field, replace

from rustic_ai.core.guild.execution.multiprocess.boot import BootFile
from rustic_ai.core.guild.execution.multiprocess.health import Health, HealthLimits
from rustic_ai.core.guild.execution.multiprocess.launchers import Launcher
from rustic_ai.core.guild.execution.multiprocess.life import AgentLife, Deadlines, Identity
from rustic_ai.core.guild.execution.multiprocess.table import SharedTable
from rustic_ai.core.guild.execution.multiprocess.wrapper import MultiProcessAgentWrapper
from rustic_ai.core.guild.execution.stats import AgentEvent, AgentState, ExitReport
from rustic_ai.core.guild.execution.supervision.reactor import Action, Reactor, Timer
from rustic_ai.core.guild.execution.supervision.restarts import decide
from rustic_ai.core.guild.supervision import Strategy

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SupervisorSettings:
    """How agents are looked after."""

    strategy: Strategy = Strategy.ONE_FOR_ONE
    deadlines: Deadlines = field(default_factory=Deadlines)
    health: HealthLimits = field(default_factory=HealthLimits)


class _Cycle:
    """Agents that are started again together, once all their processes are gone."""

    def __init__(self, members: list[MultiProcessAgentWrapper], ready_at: float) -> None:
        self.members = members
        self.waits_for = {id(m) for m in members if m.life is not None}
        self.ready_at = ready_at


class Supervisor:
    """Looks after the agents of an engine, in the order of their launch.

    All but `post` is for the reactor's thread.

    Args:
        reactor: where everything happens.
        launcher: makes processes.
        table: where states are published.
        settings: how agents are looked after.
        tell: called with every change of state.
    """

    def __init__(
        self,
        reactor: Reactor,
        launcher: Launcher,
        table: SharedTable,
        settings: SupervisorSettings,
        tell: Callable[[AgentEvent], None],
    ) -> None:
        self._reactor = reactor
        self._launcher = launcher
        self._table = table
        self._settings = settings
        self._tell = tell
        self._agents: list[MultiProcessAgentWrapper] = []
        self._waiting: deque[MultiProcessAgentWrapper] = deque()
        self._starting: set[int] = set()
        self._cycles: list[_Cycle] = []
        self._closing = self._is_starting = False
        self._health = Health(reactor, settings.health, lambda: self._agents)

    @property
    def stop_grace(self) -> float:
        """Seconds from asking an agent to stop to SIGTERM."""
        return self._settings.deadlines.stop

    @property
    def orphan_grace(self) -> float:
        """Seconds that agents have when the engine is gone."""
        return self._settings.deadlines.orphan

    def post(self, action: Action) -> None:
        """Have something done on the reactor's thread; from any thread."""
        self._reactor.post(action)

    def after(self, delay: float, action: Action) -> Timer:
        """Have something done in so many seconds."""
        return self._reactor.after(delay, action)

    def stop_all(self, timeout: float | None) -> list[Future[None]]:
        """Start nothing any more, and stop all agents at once; from any thread.

        Args:
            timeout: seconds from asking to SIGTERM, in place of the usual deadline.

        Returns:
            What `result()` waits on for each process to be gone.
        """
        stops: list[Future[None]] = []

        def stop() -> None:
            self._closing = True
            stops.extend(agent.request_stop(timeout) for agent in self._agents)

        self._reactor.call(stop)
        return stops

    # Starting

    def launch(self, agent: MultiProcessAgentWrapper) -> None:
        """Start an agent's process, as soon as not too many others start."""
        if self._closing:
            agent.abandon()
            return
        if agent.state is not AgentState.STARTING:  # stopped meanwhile
            return
        if agent not in self._agents:
            self._agents.append(agent)
            self._health.look_after(agent)
        self._waiting.append(agent)
        self._start_waiting()

    def relaunch(self, agent: MultiProcessAgentWrapper) -> None:
        """Start an agent's next process."""
        if agent.state not in {AgentState.BACKOFF, AgentState.FATAL} or self._closing:
            return
        agent.restarts += 1
        agent.expect_launch()
        self.launch(agent)

    def _start_waiting(self) -> None:
        if self._is_starting:  # by a start that failed at once: the loop goes on below it
            return
        self._is_starting = True
        try:
            while self._waiting and len(self._starting) < self._launcher.max_starting:
                agent = self._waiting.popleft()
                self._starting.add(id(agent))
                agent.launch()
        finally:
            self._is_starting = False

    def start_is_over(self, agent: MultiProcessAgentWrapper) -> None:
        """Take note that an agent is ready, or will not be."""
        if agent in self._waiting:
            self._waiting.remove(agent)
        self._starting.discard(id(agent))
        self._start_waiting()

    def new_life(
        self,
        identity: Identity,
        boot: BootFile,
        environment: dict[str, str],
        agent: MultiProcessAgentWrapper,
    ) -> AgentLife:
        """Return a process to begin."""
        return AgentLife(
            identity,
            boot,
            environment,
            self._launcher,
            self._reactor,
            self._settings.deadlines,
            agent,
        )

    def forget(self, agent: MultiProcessAgentWrapper) -> None:
        """Look after an agent no more."""
        agent.cancel_plan()
        if agent in self._agents:
            self._agents.remove(agent)

    # Telling

    def reset_cells(self, agent: MultiProcessAgentWrapper) -> None:
        """Empty what the last process of an agent said."""
        self._table.clear_cells(agent.place.slot)

    def publish(self, agent: MultiProcessAgentWrapper) -> None:
        """Write what there is to say of an agent into the table."""
        self._table.write(agent.place.slot, agent.record())

    def state_changed(
        self, agent: MultiProcessAgentWrapper, report: ExitReport | None = None
    ) -> None:
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

    def decide(self, agent: MultiProcessAgentWrapper, life: AgentLife, report: ExitReport) -> None:
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

    def _give_up(self, agent: MultiProcessAgentWrapper, report: ExitReport) -> None:
        agent.end(AgentState.FATAL, replace(report, gave_up=True))
        if agent.policy.on_give_up == "escalate":
            logger.error("agent %r escalates: all agents of its engine end", agent.spec.name)
            for other in list(self._agents):
                if other is not agent:
                    other.request_stop()
        elif agent.policy.quarantine:
            agent.plan_launch(agent.policy.quarantine)

    def _restart(self, agent: MultiProcessAgentWrapper, delay: float) -> None:
        others = self._affected_by(agent)
        if not others:
            agent.plan_launch(delay)
            return
        cycle = _Cycle(sorted([agent, *others], key=self._agents.index), time.monotonic() + delay)
        self._cycles.append(cycle)
        for other in others:
            other.cycle()
        self._finish_cycle(cycle)

    def _affected_by(self, agent: MultiProcessAgentWrapper) -> list[MultiProcessAgentWrapper]:
        if self._settings.strategy is Strategy.ONE_FOR_ONE:
            return []
        first = 0
        if self._settings.strategy is Strategy.REST_FOR_ONE:
            first = self._agents.index(agent) + 1
        live = {AgentState.STARTING, AgentState.RUNNING}
        return [
            other
            for other in self._agents[first:]
            if other is not agent and other.state in live and other.was_ready
        ]

    def has_cycled(self, agent: MultiProcessAgentWrapper) -> None:
        """Take note that a process that was stopped for a restart is gone."""
        for cycle in list(self._cycles):
            cycle.waits_for.discard(id(agent))
            self._finish_cycle(cycle)

    def _finish_cycle(self, cycle: _Cycle) -> None:
        if not cycle.waits_for:
            self._cycles.remove(cycle)
            delay = max(0.0, cycle.ready_at - time.monotonic())
            for member in cycle.members:
                member.plan_launch(delay)
