"""The engine's handle on one agent: its actor now, and those before and after it."""

from __future__ import annotations

import pickle
import time
from concurrent.futures import Future
from dataclasses import replace
from typing import TYPE_CHECKING

from rustic_ai.core.errors import AgentStartError, GuildError
from rustic_ai.core.guild.execution.stats import AgentState, ExitReport
from rustic_ai.core.guild.execution.supervision.restarts import RestartHistory
from rustic_ai.core.guild.spec import AgentSpec
from rustic_ai.core.guild.supervision import RestartPolicy
from rustic_ai.ray.directory import Record
from rustic_ai.ray.life import ActorLife
from rustic_ai.ray.wish import Wish

if TYPE_CHECKING:
    from rustic_ai.core.guild.execution.supervision.reactor import Timer
    from rustic_ai.ray.supervisor import Supervisor


class RayAgent:
    """Runs one agent, in one actor after another where its policy wants that.

    State changes happen on the reactor's thread; what says so may be called from any.

    Args:
        spec: the agent.
        wish: what is to be run, and how.
        policy: whether it is started again.
        supervisor: launches it, and decides after its death.
    """

    def __init__(
        self, spec: AgentSpec, wish: Wish, policy: RestartPolicy, supervisor: Supervisor
    ) -> None:
        self.spec = spec
        self.guild_id = wish.guild_id
        self.actor_name = wish.actor_name
        self.policy = policy
        self.history = RestartHistory()
        self.generation = 0
        self.restarts = 0
        self.state = AgentState.STARTING
        self.report: ExitReport | None = None
        self.life: ActorLife | None = None
        self.ready: Future[None] = Future()
        self._wish = wish
        self._supervisor = supervisor
        self._pickled_spec = pickle.dumps(spec)
        self._last: ActorLife | None = None
        self._started: float | None = None
        self._stop_requested = self._cycling = False
        self._stops: list[Future[None]] = []
        self._plan: Timer | None = None

    # From any thread

    def record(self) -> Record:
        """Return what others are told of it."""
        life = self._last
        where = life.where if life is not None else None
        return Record(
            self.guild_id,
            self.spec.id,
            self.spec.name,
            self._pickled_spec,
            self.actor_name,
            self.state,
            self.generation,
            self.restarts,
            self._started,
            where.pid if where is not None else None,
            where.node if where is not None else "",
            where.node_address if where is not None else "",
            self.report,
        )

    def request_stop(self, grace: float) -> Future[None]:
        """Ask it to end, and kill it if it has not in so many seconds; returns at once.

        Returns:
            What `result()` waits on for the actor to be gone, and no other to follow.
        """
        gone: Future[None] = Future()
        self._supervisor.post(lambda: self._stop(grace, gone))
        return gone

    def kill(self, because: str) -> None:
        """End its actor now; it is not started again."""
        self._supervisor.post(lambda: self._kill(because))

    # On the reactor's thread

    def launch(self) -> None:
        """Start its next actor, unless it was stopped meanwhile."""
        self._plan = None
        if self._stop_requested:
            return
        if self.generation:
            self.restarts += 1
        self.generation += 1
        self._cycling = False
        self._started = time.time()
        life = self._supervisor.new_life(self._wish, self)
        self.life = self._last = life
        self.change(AgentState.STARTING)
        life.begin()

    def plan_launch(self, delay: float) -> None:
        """Have it launched in so many seconds, unless it is stopped first."""
        self.cancel_plan()
        self._plan = self._supervisor.after(delay, self.launch)

    def cancel_plan(self) -> None:
        """Do not launch it again."""
        if self._plan is not None:
            self._plan.cancel()
            self._plan = None

    def cycle(self, grace: float) -> None:
        """Stop its actor, for the supervisor to start another."""
        if self.life is not None and not self._stop_requested:
            self._cycling = True
            self.change(AgentState.STOPPING)
            self.life.stop(grace)

    def change(self, state: AgentState, report: ExitReport | None = None) -> None:
        """Be in a state from now on, and have everybody told."""
        self.state = state
        self._supervisor.state_changed(self, report)
        if not state.is_live:
            stops, self._stops = self._stops, []
            for gone in stops:
                gone.set_result(None)

    def end(self, state: AgentState, report: ExitReport) -> None:
        """Take note how an actor ended, and what follows."""
        self.report = report
        self.change(state, report)

    # What its life tells

    def life_ready(self) -> None:
        """Take note that it is ready."""
        if self.state is AgentState.STARTING:
            self.change(AgentState.RUNNING)
            if not self.ready.done():
                self.ready.set_result(None)

    def life_ended(self, report: ExitReport) -> None:
        """Decide what comes next."""
        life, self.life = self.life, None
        assert life is not None
        life.close()
        was_ready = self.ready.done()
        report = replace(report, was_ready=was_ready)
        if self._stop_requested or not was_ready:
            self.end(
                AgentState.STOPPED if self._stop_requested else AgentState.EXITED,
                replace(report, requested=self._stop_requested),
            )
            self._fail_start(life.start_failure(report))
            if self._cycling:
                self._supervisor.has_cycled(self)
        elif self._cycling:
            self.end(AgentState.BACKOFF, replace(report, requested=True, restart_in=0.0))
            self._supervisor.has_cycled(self)
        elif life.outcome is not None and life.outcome.retiring:
            self.end(AgentState.BACKOFF, replace(report, restart_in=0.0))
            self.launch()
        else:
            self._supervisor.decide(self, life, report)

    # What callers want

    def _stop(self, grace: float, gone: Future[None]) -> None:
        self._stop_requested = True
        self.cancel_plan()
        if self.life is None:
            self._end_without_actor()
            gone.set_result(None)
            return
        self._stops.append(gone)
        self.change(AgentState.STOPPING)
        self.life.stop(grace)

    def _kill(self, because: str) -> None:
        self._stop_requested = True
        self.cancel_plan()
        if self.life is None:
            self._end_without_actor()
        else:
            self.life.kill(because)

    def _end_without_actor(self) -> None:
        if self.state.is_live:
            self.change(AgentState.STOPPED)
        self._fail_start(
            AgentStartError(
                agent_id=self.spec.id,
                agent_name=self.spec.name,
                reason="it was stopped before it was started",
            )
        )

    def _fail_start(self, error: GuildError) -> None:
        if not self.ready.done():
            self.ready.set_exception(error)
