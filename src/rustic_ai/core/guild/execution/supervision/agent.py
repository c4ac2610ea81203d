"""An engine's handle on one agent: what is the same wherever its processes run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from concurrent.futures import Future
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from rustic_ai.core.errors import AgentStartError, GuildError
from rustic_ai.core.guild.execution.stats import AgentState, ExitReport
from rustic_ai.core.guild.execution.supervision.restarts import RestartHistory
from rustic_ai.core.guild.spec import AgentSpec
from rustic_ai.core.guild.supervision import RestartPolicy

if TYPE_CHECKING:
    from rustic_ai.core.guild.execution.supervision.reactor import Timer
    from rustic_ai.core.guild.execution.supervision.supervisor import Supervisor


class Life(Protocol):
    """One process of an agent; on the reactor's thread."""

    @property
    def ready_at(self) -> float | None:
        """When its agent became ready, on the monotonic clock; None: it has not."""

    @property
    def retiring(self) -> str:
        """Why it ends by itself, for another to follow at once; empty: it does not."""

    def begin(self) -> None:
        """Have the process made."""

    def stop(self, grace: float) -> None:
        """Ask it to end; it is made to if it has not in so many seconds."""

    def kill(self, because: str) -> None:
        """End it now."""

    def start_failure(self, report: ExitReport) -> GuildError:
        """Return what whoever started the agent is told, if it ended before it was ready."""


class LifeOwner(Protocol):
    """Is told what becomes of a life; on the reactor's thread."""

    def life_ready(self) -> None:
        """The agent is ready."""

    def life_ended(self, report: ExitReport) -> None:
        """The process is gone. Called once."""


LifeT = TypeVar("LifeT", bound=Life)


class SupervisedAgent(ABC, Generic[LifeT]):
    """Runs one agent, in one process after another where its policy wants that.

    State changes happen on the reactor's thread; what says so may be called from any.

    Args:
        guild_id: its guild.
        spec: the agent.
        policy: whether it is started again.
        supervisor: launches it, and decides after its death.
    """

    def __init__(
        self, guild_id: str, spec: AgentSpec, policy: RestartPolicy, supervisor: Supervisor[Any]
    ) -> None:
        self.guild_id = guild_id
        self.spec = spec
        self.policy = policy
        self.history = RestartHistory()
        self.generation = 0
        self.restarts = 0
        self._supervisor = supervisor
        self._state = AgentState.STARTING
        self._life: LifeT | None = None
        self._report: ExitReport | None = None
        self.ready: Future[None] = Future()
        """Has a result once it was ready, or the error of its start."""
        self._stops: list[Future[None]] = []
        self._stop_requested = False
        self._cycling = False
        self._plan: Timer | None = None

    # From any thread

    @property
    def state(self) -> AgentState:
        """Where it is in its life."""
        return self._state

    @property
    def life(self) -> LifeT | None:
        """Its process now."""
        return self._life

    @property
    def exit_report(self) -> ExitReport | None:
        """How its last process ended; None before one has."""
        return self._report

    @property
    def was_ready(self) -> bool:
        """Whether it has ever been ready."""
        return self.ready.done()

    @abstractmethod
    def get_process_id(self) -> int | None:
        """Return the pid; also of a process that has ended."""

    def request_stop(self, timeout: float | None = None) -> Future[None]:
        """Ask its process to end, and make it if it does not; returns at once.

        Args:
            timeout: seconds that it has, in place of the usual deadline.

        Returns:
            What `result()` waits on for the process to be gone, and no other to follow.
        """
        gone: Future[None] = Future()
        self._supervisor.post(lambda: self._stop(timeout, gone))
        return gone

    def kill(self, because: str) -> None:
        """End its process now; it is not started again."""
        self._supervisor.post(lambda: self._kill(because))

    # On the reactor's thread from here on; for the supervisor

    def expect_launch(self) -> None:
        """Be starting; everybody is told once its process is asked for."""
        self._state = AgentState.STARTING

    def launch(self) -> None:
        """Start its next process."""
        self.generation += 1
        self._cycling = False
        self._life = life = self._new_life()
        self.change(AgentState.STARTING)
        life.begin()

    @abstractmethod
    def _new_life(self) -> LifeT:
        """Return its next process, to begin."""

    def plan_launch(self, delay: float) -> None:
        """Have it launched in so many seconds, unless it is stopped first."""
        self.cancel_plan()
        self._plan = self._supervisor.after(delay, lambda: self._supervisor.relaunch(self))

    def cancel_plan(self) -> None:
        """Do not launch it again."""
        if self._plan is not None:
            self._plan.cancel()
            self._plan = None

    def cycle(self) -> None:
        """Stop its process, for the supervisor to start another."""
        if self._life is not None and not self._stop_requested:
            self._cycling = True
            self.change(AgentState.STOPPING)
            self._life.stop(self._supervisor.stop_grace)

    def change(self, state: AgentState, report: ExitReport | None = None) -> None:
        """Be in a state from now on, and have everybody told."""
        self._state = state
        self._supervisor.state_changed(self, report)
        if not state.is_live:
            stops, self._stops = self._stops, []
            for gone in stops:
                gone.set_result(None)

    def end(self, state: AgentState, report: ExitReport) -> None:
        """Take note how a process ended, and what follows."""
        self._report = report
        self.change(state, report)

    # What its life tells

    def life_ready(self) -> None:
        """Take note that it is ready."""
        if self._state is AgentState.STARTING:
            self.change(AgentState.RUNNING)
            if not self.ready.done():
                self.ready.set_result(None)

    def life_ended(self, report: ExitReport) -> None:
        """Decide what comes next."""
        life, self._life = self._life, None
        assert life is not None
        report = replace(report, was_ready=self.ready.done())
        if self._stop_requested:
            report = replace(report, requested=True)
            self.end(AgentState.STOPPED, report)
            self._fail_start(life.start_failure(report))
            if self._cycling:
                self._supervisor.has_cycled(self)
        elif not self.ready.done():
            self.end(AgentState.EXITED, report)
            self._fail_start(life.start_failure(report))
        elif self._cycling:
            self.end(AgentState.BACKOFF, replace(report, restart_in=0.0))
            self._supervisor.has_cycled(self)
        elif life.retiring:
            self.end(AgentState.BACKOFF, replace(report, restart_in=0.0))
            self._supervisor.relaunch(self)
        else:
            self._supervisor.decide(self, life, report)

    # What callers want

    def _stop(self, timeout: float | None, gone: Future[None]) -> None:
        self._stop_requested = True
        self.cancel_plan()
        if self._life is None:
            self._end_without_process()
            gone.set_result(None)
            return
        self._stops.append(gone)
        self.change(AgentState.STOPPING)
        self._life.stop(self._supervisor.stop_grace if timeout is None else timeout)

    def _kill(self, because: str) -> None:
        self._stop_requested = True
        self.cancel_plan()
        if self._life is None:
            self._end_without_process()
        else:
            self._life.kill(because)

    def _end_without_process(self) -> None:
        if self._state.is_live:
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
