"""The program's handle on one agent's process."""

from __future__ import annotations

import contextlib
import logging
import pickle
import signal
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

import psutil

from rustic_ai.core.errors import AgentStartError
from rustic_ai.core.guild.execution.multiprocess.boot import PackedLaunch
from rustic_ai.core.guild.execution.multiprocess.channel import ControlMessage, Failed, Ready, Stop
from rustic_ai.core.guild.execution.multiprocess.exit_report import describe_ending
from rustic_ai.core.guild.execution.multiprocess.launchers import AgentProcess, Launcher
from rustic_ai.core.guild.execution.multiprocess.supervisor import Supervisor, Timer
from rustic_ai.core.guild.execution.stats import AgentState, ExitReport, ProcessInfo
from rustic_ai.core.messaging.core.messaging_config import MessagingConfig

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Deadlines:
    """How long each step may take, in seconds."""

    start: float = 30.0
    """From launch to ready."""
    stop: float = 10.0
    """From being asked to stop to SIGTERM."""
    term: float = 1.0
    """From SIGTERM to SIGKILL."""
    orphan: float = 0.5
    """From the end of the engine to the end of its agents."""


class MultiProcessAgentWrapper:
    """Runs one agent in a process of its own, once.

    State changes happen on the supervisor's thread; the public methods may be called from any.

    Args:
        packed: the agent.
        launcher: makes the process.
        supervisor: watches it.
        deadlines: how long each step may take.
        on_exit: called on the supervisor's thread when the process has ended.
    """

    def __init__(
        self,
        packed: PackedLaunch,
        launcher: Launcher,
        supervisor: Supervisor,
        deadlines: Deadlines,
        on_exit: Callable[[ExitReport], None],
    ) -> None:
        self.spec = packed.agent
        self._packed = packed
        self._launcher = launcher
        self._supervisor = supervisor
        self._deadlines = deadlines
        self._on_exit = on_exit
        self._process: AgentProcess | None = None
        self._state = AgentState.STARTING
        self._started = time.monotonic()
        self._ready: Future[None] = Future()
        self._gone: Future[ExitReport] = Future()
        self._failure: Failed | None = None
        self._killed_because = ""
        self._timer: Timer | None = None

    @property
    def state(self) -> AgentState:
        """Where it is in its life."""
        return self._state

    @property
    def exit_report(self) -> ExitReport | None:
        """How it ended; None while it lives."""
        return self._gone.result() if self._gone.done() else None

    def run(self, messaging: MessagingConfig) -> None:
        """Start the agent's process, and return when the agent is ready.

        Args:
            messaging: how it joins the messages of its guild.

        Raises:
            AgentStartError: it did not become ready; its cause is the agent's own exception where
                that can travel.
            OSError: the system refuses another process.
        """
        process = self._launcher.start(self._packed, messaging, self._deadlines.orphan)
        self._packed = PackedLaunch(self.spec, b"", None)  # not needed again: may be large
        self._supervisor.post(lambda: self._begin(process))
        try:
            self._ready.result()
        except AgentStartError:
            raise
        except BaseException:  # Ctrl-C while waiting: the process must not stay behind
            self.kill("its start was interrupted")
            raise

    def request_stop(self, timeout: float | None = None) -> Future[ExitReport]:
        """Begin the ladder ask, SIGTERM, SIGKILL; returns at once.

        Args:
            timeout: seconds from asking to SIGTERM, in place of the usual deadline.

        Returns:
            What `result()` waits on for the process to be gone.
        """
        grace = self._deadlines.stop if timeout is None else timeout
        self._supervisor.post(lambda: self._stop(grace))
        return self._gone

    def shutdown(self) -> None:
        """Stop the agent's process; returns when it is gone."""
        self.request_stop().result()

    def terminate(self) -> None:
        """Send SIGTERM now, and SIGKILL soon."""
        self._supervisor.post(self._terminate)

    def kill(self, because: str) -> None:
        """Send SIGKILL now."""
        self._supervisor.post(lambda: self._kill(because))

    def abandon(self) -> None:
        """Declare it gone if its process never came to be, so that nobody waits for it."""
        self._supervisor.post(self._abandon)

    def is_alive(self) -> bool:
        """Say whether the agent is ready and its process lives."""
        return self._state is AgentState.RUNNING

    def get_process_id(self) -> int | None:
        """Return the pid; also of a process that has ended."""
        return self._process.pid if self._process is not None else None

    def get_process_info(self) -> ProcessInfo:
        """Look at the process now."""
        report = self.exit_report
        pid = self.get_process_id()
        memory: float | None = None
        if report is None and pid is not None:
            with contextlib.suppress(psutil.Error):  # it may end at this very moment
                memory = psutil.Process(pid).memory_info().rss / 1e6
        return ProcessInfo(
            pid=pid,
            is_alive=self.is_alive(),
            name=self.spec.name,
            status=self._state,
            exitcode=report.exitcode if report else None,
            memory_mb=memory,
            uptime=None if report else time.monotonic() - self._started,
            last_exit=report,
        )

    # On the supervisor's thread from here on.

    def _begin(self, process: AgentProcess) -> None:
        self._process = process
        self._supervisor.watch(process.channel, self._listen)
        self._supervisor.watch(process, self._ended)
        if self._state is AgentState.STOPPING:  # asked to before it was there
            self._send_stop(self._deadlines.stop)
        else:
            late = f"not ready within {self._deadlines.start:g} s"
            self._plan(self._deadlines.start, lambda: self._kill(late))

    def _listen(self) -> None:
        assert self._process is not None
        messages = self._process.channel.receive()
        if messages is None:
            self._supervisor.unwatch(self._process.channel)
        else:
            self._hear(messages)

    def _hear(self, messages: list[ControlMessage]) -> None:
        for message in messages:
            if isinstance(message, Failed):
                self._failure = message
            elif isinstance(message, Ready) and self._state is AgentState.STARTING:
                self._state = AgentState.RUNNING
                self._cancel_plan()
                self._ready.set_result(None)

    def _ended(self) -> None:
        process = self._process
        assert process is not None
        while messages := process.channel.receive():  # its last words may still be on the way
            self._hear(messages)
        ending = process.reap()
        self._cancel_plan()
        self._supervisor.unwatch(process.channel)
        self._supervisor.unwatch(process)
        process.close()
        was_requested = self._state is AgentState.STOPPING
        self._state = AgentState.EXITED
        report = ExitReport(
            agent_id=self.spec.id,
            agent_name=self.spec.name,
            exitcode=ending.exitcode,
            reason=describe_ending(ending, self._failure, self._killed_because),
            requested=was_requested,
            lived=time.monotonic() - self._started,
            peak_memory_mb=ending.peak_memory_mb,
            cpu_seconds=ending.cpu_seconds,
        )
        self._gone.set_result(report)
        if not self._ready.done():
            self._ready.set_exception(self._start_error(report))
            return
        if report.failed:
            logger.error("%s", report)
        self._on_exit(report)

    def _stop(self, grace: float) -> None:
        if self._gone.done():
            return
        self._state = AgentState.STOPPING
        if self._process is not None:
            self._send_stop(grace)

    def _send_stop(self, grace: float) -> None:
        assert self._process is not None
        self._process.channel.send(Stop())
        self._plan(grace, self._terminate)

    def _terminate(self) -> None:
        if self._process is None or self._gone.done():
            return
        self._state = AgentState.STOPPING
        self._process.signal(signal.SIGTERM)
        self._process.signal(signal.SIGCONT)  # a stopped process could not obey
        self._plan(self._deadlines.term, lambda: self._kill("it did not stop in time"))

    def _abandon(self) -> None:
        if self._process is None and not self._gone.done():
            self._state = AgentState.EXITED
            self._gone.set_result(
                ExitReport(
                    agent_id=self.spec.id,
                    agent_name=self.spec.name,
                    exitcode=None,
                    reason="was never started",
                    requested=True,
                    lived=0.0,
                )
            )

    def _kill(self, because: str) -> None:
        if self._process is not None and not self._gone.done():
            self._killed_because = self._killed_because or because
            self._process.signal(signal.SIGKILL)

    def _plan(self, delay: float, action: Callable[[], None]) -> None:
        self._cancel_plan()
        self._timer = self._supervisor.after(delay, action)

    def _cancel_plan(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _start_error(self, report: ExitReport) -> AgentStartError:
        failure = self._failure
        if failure is not None:
            reason = f"{failure.error_type}: {failure.text}"
        elif report.requested:
            reason = "it was stopped before it was ready"
        else:
            reason = f"it {report.reason}"
        error = AgentStartError(
            agent_id=self.spec.id,
            agent_name=self.spec.name,
            reason=reason,
            exitcode=report.exitcode,
            remote_traceback=failure.traceback if failure else "",
        )
        if failure is not None and failure.exception is not None:
            try:
                error.__cause__ = pickle.loads(failure.exception)
            except Exception:
                logger.debug("the agent's exception does not load here", exc_info=True)
        return error
