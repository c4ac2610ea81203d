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
)
from rustic_ai.core.guild.execution.multiprocess.pulse import message_in_hand, seen_in
from rustic_ai.core.guild.execution.multiprocess.table import Place, Record
from rustic_ai.core.guild.execution.stats import AgentState, ExitReport, ProcessInfo
from rustic_ai.core.guild.execution.supervision.agent import SupervisedAgent
from rustic_ai.core.guild.supervision import ResourceLimits, Restart, RestartPolicy, Strategy
from rustic_ai.core.messaging.core.messaging_config import MessagingConfig

if TYPE_CHECKING:
    from rustic_ai.core.guild.execution.multiprocess.supervisor import ProcessSupervisor

_MAX_LOST = 3
"""How often a start is tried again whose nursery ended under it."""


class MultiProcessAgentWrapper(SupervisedAgent[AgentLife]):
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
        supervisor: ProcessSupervisor,
        place: Place,
    ) -> None:
        super().__init__(packed.guild_id, packed.agent, policy, supervisor)
        self.limits = limits
        self.place = place
        self._supervisor: ProcessSupervisor = supervisor
        self._packed: PackedLaunch | None = packed
        self._environment = packed.surroundings.environment
        self._boot: BootFile | None = None
        self._pid: int | None = None
        self._lost = 0

    # From any thread

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
        return self.ready

    def shutdown(self) -> None:
        """Stop the agent's process; returns when it is gone."""
        self.request_stop().result()

    def terminate(self) -> None:
        """Send SIGTERM now, and SIGKILL soon."""
        self._supervisor.post(self._terminate)

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

    def _new_life(self) -> AgentLife:
        assert self._boot is not None
        self._pid = None
        self._supervisor.reset_cells(self)
        identity = Identity(
            self.guild_id, self.spec.id, self.spec.name, self.place.slot, self.generation
        )
        return self._supervisor.new_life(identity, self._boot, self._environment, self)

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

    def life_started(self, pid: int | None) -> None:
        """Take note of the pid."""
        self._pid = pid
        self._supervisor.publish(self)

    def life_ready(self) -> None:
        """Take note that it is ready."""
        self._supervisor.start_is_over(self)
        super().life_ready()
        if (
            self.policy.restart is Restart.TEMPORARY
            and self._supervisor.strategy is Strategy.ONE_FOR_ONE
            and not self.limits.recycles
        ):
            self._boot = None  # not needed again: may be large

    def life_ended(self, report: ExitReport) -> None:
        """Decide what comes next."""
        self._supervisor.start_is_over(self)
        life = self._life
        is_awaited = not (self._stop_requested or self.was_ready)
        if is_awaited and life is not None and life.lost and self._lost < _MAX_LOST:
            self._lost += 1
            self._life = None
            self._supervisor.launch(self)
        else:
            super().life_ended(replace(report, message_id=message_in_hand(self.place.cells)))

    # What callers want

    def _terminate(self) -> None:
        self._stop_requested = True
        if self._life is not None:
            self.change(AgentState.STOPPING)
            self._life.terminate()

    def _abandon(self) -> None:
        if self._life is None:
            self._end_without_process()

    def _end_without_process(self) -> None:
        self._supervisor.start_is_over(self)
        super()._end_without_process()
