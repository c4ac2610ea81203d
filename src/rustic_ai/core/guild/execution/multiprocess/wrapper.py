"""The program's handle on one agent: its process now, and those before and after it."""

from __future__ import annotations

import contextlib
import time
from concurrent.futures import Future
from dataclasses import replace
from typing import TYPE_CHECKING

import psutil

from rustic_ai.core.errors import AgentStartError
from rustic_ai.core.guild.execution.multiprocess.boot import BootFile, PackedLaunch
from rustic_ai.core.guild.execution.multiprocess.life import (
    AgentLife,
    Identity,
    start_error,
)
from rustic_ai.core.guild.execution.multiprocess.pulse import message_in_hand, seen_in
from rustic_ai.core.guild.execution.multiprocess.table import Place, Record
from rustic_ai.core.guild.execution.stats import AgentState, ExitReport, ProcessInfo
from rustic_ai.core.guild.execution.supervision.restarts import RestartHistory
from rustic_ai.core.guild.supervision import ResourceLimits, Restart, RestartPolicy
from rustic_ai.core.messaging.core.messaging_config import MessagingConfig

if TYPE_CHECKING:
    from rustic_ai.core.guild.execution.multiprocess.supervisor import Supervisor
    from rustic_ai.core.guild.execution.supervision.reactor import Timer

_MAX_LOST = 3
"""How often a start is tried again whose nursery ended under it."""


class MultiProcessAgentWrapper:
    """Runs one agent, in one process after another where its policy wants that.

    State changes happen on the reactor's thread; the public methods may be called from any.

    Args:
        packed: the agent.
        policy: whether it is started again.
        limits: what its process may use.
        supervisor: launches it, and decides after its death.
        place: where the shared table tells of it.
    """

    def __init__(
        self,
        packed: PackedLaunch,
        policy: RestartPolicy,
        limits: ResourceLimits,
        supervisor: Supervisor,
        place: Place,
    ) -> None:
        self.guild_id = packed.guild_id
        self.spec = packed.agent
        self.policy = policy
        self.limits = limits
        self.place = place
        self.history = RestartHistory()
        self.generation = 0
        self.restarts = 0
        self._packed: PackedLaunch | None = packed
        self._environment = packed.surroundings.environment
        self._boot: BootFile | None = None
        self._supervisor = supervisor
        self._state = AgentState.STARTING
        self._life: AgentLife | None = None
        self._pid: int | None = None
        self._report: ExitReport | None = None
        self._ready: Future[None] = Future()
        self._stops: list[Future[None]] = []
        self._stop_requested = False
        self._cycling = False
        self._lost = 0
        self._plan: Timer | None = None

    # From any thread

    @property
    def state(self) -> AgentState:
        """Where it is in its life."""
        return self._state

    @property
    def exit_report(self) -> ExitReport | None:
        """How its last process ended; None before one has."""
        return self._report

    def run(self, messaging: MessagingConfig) -> None:
        """Start the agent's process, and return when the agent is ready.

        Args:
            messaging: how it joins the messages of its guild.

        Raises:
            AgentStartError: it did not become ready; its cause is the agent's own exception where
                that can travel.
        """
        try:
            self.begin(messaging).result()
        except AgentStartError:
            raise
        except BaseException:  # Ctrl-C while waiting: the process must not stay behind
            self.kill("its start was interrupted")
            raise

    def begin(self, messaging: MessagingConfig) -> Future[None]:
        """Have the agent's process started; returns at once.

        Returns:
            What `result()` waits on for the agent to be ready; raises as `run` does.
        """
        assert self._packed is not None
        limits = self.limits.model_dump(mode="json")
        self._boot = BootFile.of(self._packed, messaging, limits, self._supervisor.orphan_grace)
        self._packed = None
        self._supervisor.post(lambda: self._supervisor.launch(self))
        return self._ready

    def request_stop(self, timeout: float | None = None) -> Future[None]:
        """Begin the ladder ask, SIGTERM, SIGKILL; returns at once.

        Args:
            timeout: seconds from asking to SIGTERM, in place of the usual deadline.

        Returns:
            What `result()` waits on for the process to be gone, and no other to follow.
        """
        gone: Future[None] = Future()
        self._supervisor.post(lambda: self._stop(timeout, gone))
        return gone

    def shutdown(self) -> None:
        """Stop the agent's process; returns when it is gone."""
        self.request_stop().result()

    def terminate(self) -> None:
        """Send SIGTERM now, and SIGKILL soon."""
        self._supervisor.post(self._terminate)

    def kill(self, because: str) -> None:
        """Send SIGKILL now; it is not started again."""
        self._supervisor.post(lambda: self._kill(because))

    def abandon(self) -> None:
        """Declare it gone if it was never launched, so that nobody waits for it."""
        self._supervisor.post(self._abandon)

    def dump_stacks(self) -> str:
        """Return the stacks of all threads of the process; empty where there is none."""
        told: Future[str] = Future()

        def ask() -> None:
            if self._life is None:
                told.set_result("")
            else:
                self._life.collect_stacks(told.set_result)

        self._supervisor.post(ask)
        return told.result()

    def is_alive(self) -> bool:
        """Say whether the agent is ready and its process lives."""
        return self._state is AgentState.RUNNING

    def get_process_id(self) -> int | None:
        """Return the pid; also of a process that has ended."""
        return self._pid

    def get_process_info(self) -> ProcessInfo:
        """Look at the process now."""
        state, pid, life, report = self._state, self._pid, self._life, self._report
        info = ProcessInfo(
            pid=pid,
            is_alive=self.is_alive(),
            name=self.spec.name,
            status=state,
            exitcode=report.exitcode if report is not None and life is None else None,
            last_exit=report,
            generation=self.generation,
            restarts=self.restarts,
        )
        if life is None or pid is None:
            return info
        memory: float | None = None
        with contextlib.suppress(psutil.Error):  # it may end at this very moment
            memory = psutil.Process(pid).memory_info().rss / 1e6
        with contextlib.suppress(ValueError):  # or be taken off the list
            info = replace(info, **seen_in(self.place.cells))
        return replace(info, memory_mb=memory, uptime=time.monotonic() - life.started_at)

    # On the reactor's thread from here on; for the supervisor

    @property
    def life(self) -> AgentLife | None:
        """Its process now."""
        return self._life

    @property
    def was_ready(self) -> bool:
        """Whether it has ever been ready."""
        return self._ready.done()

    def expect_launch(self) -> None:
        """Be starting; everybody is told once its process is asked for."""
        self._state = AgentState.STARTING

    def launch(self) -> None:
        """Start its next process."""
        assert self._boot is not None
        self.generation += 1
        self._cycling = False
        self._pid = None
        self._supervisor.reset_cells(self)
        identity = Identity(
            self.guild_id, self.spec.id, self.spec.name, self.place.slot, self.generation
        )
        self._life = self._supervisor.new_life(identity, self._boot, self._environment, self)
        self.change(AgentState.STARTING)
        self._life.begin()

    def change(self, state: AgentState, report: ExitReport | None = None) -> None:
        """Be in a state from now on, and have everybody told."""
        self._state = state
        self._supervisor.state_changed(self, report)
        if not state.is_live:
            stops, self._stops = self._stops, []
            for gone in stops:
                gone.set_result(None)

    def plan_launch(self, delay: float) -> None:
        """Have it launched in so many seconds, unless it is stopped first."""
        self.cancel_plan()
        self._plan = self._supervisor.after(delay, lambda: self._supervisor.relaunch(self))

    def cycle(self) -> None:
        """Stop its process, for the supervisor to start another."""
        if self._life is not None and not self._stop_requested:
            self._cycling = True
            self.change(AgentState.STOPPING)
            self._life.stop(self._supervisor.stop_grace)

    def record(self) -> Record:
        """Return what the shared table says of it."""
        report, life = self._report, self._life
        return Record(
            generation=self.generation,
            state=self._state.number,
            pid=self._pid or 0,
            restarts=self.restarts,
            exitcode=report.exitcode if report is not None else None,
            started=int(life.started_at * 1e9) if life is not None else 0,
            ready=int(life.ready_at * 1e9) if life is not None and life.ready_at else 0,
            changed=time.time_ns(),
            peak_memory_kb=int((report.peak_memory_mb or 0) * 1e3) if report else 0,
            text=self.place.text,
        )

    # What its life tells

    def life_started(self, life: AgentLife) -> None:
        """Take note of the pid."""
        self._pid = life.pid
        self._supervisor.publish(self)

    def life_ready(self, life: AgentLife) -> None:  # noqa: ARG002 - of the protocol
        """Take note that it is ready."""
        self._supervisor.start_is_over(self)
        if self._state is AgentState.STARTING:
            self.change(AgentState.RUNNING)
            if not self._ready.done():
                self._ready.set_result(None)
                if self.policy.restart is Restart.TEMPORARY and not self.limits.recycles:
                    self._boot = None  # not needed again: may be large

    def life_ended(self, life: AgentLife, report: ExitReport) -> None:
        """Decide what comes next."""
        self._life = None
        self._supervisor.start_is_over(self)
        report = replace(
            report,
            message_id=message_in_hand(self.place.cells),
            was_ready=self._ready.done(),
        )
        if self._stop_requested:
            report = replace(report, requested=True)
            self.end(AgentState.STOPPED, report)
            if not self._ready.done():
                self._ready.set_exception(start_error(report, life.failure))
            if self._cycling:
                self._supervisor.has_cycled(self)
        elif not self._ready.done():
            if life.lost and self._lost < _MAX_LOST:
                self._lost += 1
                self._supervisor.launch(self)
                return
            self.end(AgentState.EXITED, report)
            self._ready.set_exception(start_error(report, life.failure))
        elif self._cycling:
            self.end(AgentState.BACKOFF, replace(report, restart_in=0.0))
            self._supervisor.has_cycled(self)
        elif life.retiring:
            self.end(AgentState.BACKOFF, replace(report, restart_in=0.0))
            self._supervisor.relaunch(self)
        else:
            self._supervisor.decide(self, life, report)

    def end(self, state: AgentState, report: ExitReport) -> None:
        """Take note how a process ended, and what follows."""
        self._report = report
        self.change(state, report)

    # What callers want

    def _stop(self, timeout: float | None, gone: Future[None]) -> None:
        self._stop_requested = True
        self.cancel_plan()
        if self._life is not None:
            self._stops.append(gone)
            self.change(AgentState.STOPPING)
            grace = self._supervisor.stop_grace if timeout is None else timeout
            self._life.stop(grace)
            return
        self._end_without_process()
        gone.set_result(None)

    def _terminate(self) -> None:
        self._stop_requested = True
        if self._life is not None:
            self.change(AgentState.STOPPING)
            self._life.terminate()

    def _kill(self, because: str) -> None:
        self._stop_requested = True
        self.cancel_plan()
        if self._life is not None:
            self._life.kill(because)
        else:
            self._end_without_process()

    def _abandon(self) -> None:
        if self._life is None:
            self._end_without_process()

    def _end_without_process(self) -> None:
        self._supervisor.start_is_over(self)
        if self._state.is_live:
            self.change(AgentState.STOPPED)
        if not self._ready.done():
            self._ready.set_exception(
                AgentStartError(
                    agent_id=self.spec.id,
                    agent_name=self.spec.name,
                    reason="it was stopped before it was started",
                )
            )

    def cancel_plan(self) -> None:
        """Do not launch it again."""
        if self._plan is not None:
            self._plan.cancel()
            self._plan = None
