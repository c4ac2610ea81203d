"""One process of an agent, seen by the engine: from its launch to its end."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import pickle
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from rustic_ai.core.errors import AgentStartError
from rustic_ai.core.forking import guard_forks
from rustic_ai.core.guild.execution.multiprocess.boot import BootFile
from rustic_ai.core.guild.execution.multiprocess.channel import (
    Channel,
    ControlMessage,
    Failed,
    Ready,
    Retiring,
    Stop,
)
from rustic_ai.core.guild.execution.multiprocess.crash_file import (
    STACKS_SIGNAL,
    clear_stacks,
    create_crash_file,
    read_last_lines,
    read_stacks,
)
from rustic_ai.core.guild.execution.multiprocess.exit_report import (
    describe_ending,
    recent_oom_kills,
)
from rustic_ai.core.guild.execution.multiprocess.launchers import (
    AgentProcess,
    Ending,
    Errand,
    Launcher,
    control_pair,
)
from rustic_ai.core.guild.execution.stats import ExitReport
from rustic_ai.core.guild.execution.supervision.agent import LifeOwner
from rustic_ai.core.guild.execution.supervision.reactor import Reactor, Timer

logger = logging.getLogger(__name__)

_STACKS_DEADLINE = 0.2
"""Seconds that a process gets to write its stacks before it is killed."""
_DUMP_DEADLINE = 2.0
_DUMP_PERIOD = 0.05
_KILL_DEADLINE = 5.0
"""Seconds after SIGKILL at which a process is given up: the kernel itself does not let go of it."""


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


class ProcessOwner(LifeOwner, Protocol):
    """Is told of the process, too."""

    def life_started(self, pid: int | None) -> None:
        """It exists."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose life it is."""

    guild_id: str
    agent_id: str
    agent_name: str
    slot: int
    generation: int


class AgentLife:
    """Starts, stops and kills one process. Everything happens on the reactor's thread.

    Args:
        identity: whose it is.
        boot: what the process is given.
        environment: its environment variables.
        launcher: makes the process.
        reactor: watches it.
        deadlines: how long each step may take.
        owner: is told.
    """

    def __init__(
        self,
        identity: Identity,
        boot: BootFile,
        environment: dict[str, str],
        launcher: Launcher,
        reactor: Reactor,
        deadlines: Deadlines,
        owner: ProcessOwner,
    ) -> None:
        self.identity = identity
        self.started_at = time.monotonic()
        self.ready_at: float | None = None
        self.failure: Failed | None = None
        self.retiring = ""
        self.lost = False
        self._boot = boot
        self._environment = environment
        self._launcher = launcher
        self._reactor = reactor
        self._deadlines = deadlines
        self._owner = owner
        self._process: AgentProcess | None = None
        self._channel: Channel | None = None
        self._crash = -1
        self._kills_before = recent_oom_kills()
        self._killed_because = ""
        self._stopping = self._over = False
        self._timer: Timer | None = None

    @property
    def pid(self) -> int | None:
        """Its pid; None until it exists."""
        return self._process.pid if self._process is not None else None

    def begin(self) -> None:
        """Ask for the process."""
        try:
            self._launch()
        except OSError as e:
            self.process_ended(Ending(None, trouble=f"could not be started: {_limit_in(e)}"))
            return
        late = f"not ready within {self._deadlines.start:g} s"
        self._plan(self._deadlines.start, lambda: self.kill(late, with_stacks=True))

    def _launch(self) -> None:
        self._crash = create_crash_file()
        ours, theirs = control_pair()
        self._channel = Channel(ours)
        guard_forks(self._channel)
        with theirs, self._boot.write() as boot:
            identity = self.identity
            errand = Errand(
                identity.agent_name,
                identity.slot,
                self._environment,
                boot.fileno(),
                theirs.fileno(),
                self._crash,
            )
            self._reactor.watch(self._channel, self._listen)
            self._process = self._launcher.start(errand, self)

    def process_started(self) -> None:
        """Take note that it exists."""
        self._owner.life_started(self.pid)

    def stop(self, grace: float) -> None:
        """Begin the ladder ask, SIGTERM, SIGKILL."""
        if self._over:
            return
        self._stopping = True
        assert self._channel is not None
        self._channel.send(Stop())
        self._plan(grace, self.terminate)

    def terminate(self) -> None:
        """Send SIGTERM now, and SIGKILL soon."""
        if self._over or self._process is None:
            return
        self._stopping = True
        self._process.signal(signal.SIGTERM)
        self._process.signal(signal.SIGCONT)  # a stopped process could not obey
        self._plan(self._deadlines.term, lambda: self.kill("it did not stop in time"))

    def kill(self, because: str, *, with_stacks: bool = False) -> None:
        """Send SIGKILL: now, or once the process has had time to write its stacks."""
        if self._over or self._process is None:
            return
        self._killed_because = self._killed_because or because
        if with_stacks:
            self.ask_for_stacks()
            self._plan(_STACKS_DEADLINE, self._send_kill)
        else:
            self._send_kill()

    def ask_for_stacks(self) -> None:
        """Have the process write its stacks, even if C code holds the GIL, or it was stopped."""
        if self._process is not None and self.pid is not None:
            self._process.signal(STACKS_SIGNAL, group=False)
            self._process.signal(signal.SIGCONT, group=False)

    def collect_stacks(self, tell: Callable[[str], None]) -> None:
        """Have the process write its stacks, and tell them once they are complete."""
        self.ask_for_stacks()
        deadline = time.monotonic() + _DUMP_DEADLINE

        def look(seen: str) -> None:
            stacks = self._stacks()
            complete = bool(stacks) and stacks == seen
            if self._over or complete or time.monotonic() > deadline:
                if not self._over:
                    clear_stacks(self._crash)
                tell(stacks or seen)
            else:
                self._reactor.after(_DUMP_PERIOD, lambda: look(stacks))

        self._reactor.after(_DUMP_PERIOD, lambda: look(""))

    def _stacks(self) -> str:
        return read_stacks(self._crash) if self._crash >= 0 else ""

    @property
    def is_being_killed(self) -> bool:
        """Whether SIGKILL was sent, or will be at once."""
        return bool(self._killed_because)

    def _send_kill(self) -> None:
        if self._process is not None:
            self._process.signal(signal.SIGKILL)
            self._plan(_KILL_DEADLINE, self._process.give_up)

    def _listen(self) -> None:
        assert self._channel is not None
        messages, ended = self._channel.drain()
        if ended:
            self._reactor.unwatch(self._channel)
        for message in messages:
            self._hear(message)

    def _hear(self, message: ControlMessage) -> None:
        if isinstance(message, Failed):
            self.failure = message
        elif isinstance(message, Retiring):
            self.retiring = message.reason
            self._plan(self._deadlines.stop, self.terminate)
        elif isinstance(message, Ready) and not self._killed_because:
            self.ready_at = time.monotonic()
            if not self._stopping:
                self._cancel_plan()
            self._owner.life_ready()

    def process_ended(self, ending: Ending) -> None:
        """Take note of the end: hear its last words, give everything back, tell the owner."""
        if self._over:
            return
        self._cancel_plan()
        if self._channel is not None:
            for message in self._channel.drain()[0]:
                self._hear(message)
            self._cancel_plan()
            self._reactor.unwatch(self._channel)
            self._channel.close()
        self._over = True
        self.lost = ending.lost
        report = self._report(ending)
        if self._crash >= 0:
            os.close(self._crash)
            self._crash = -1
        self._owner.life_ended(report)

    def _report(self, ending: Ending) -> ExitReport:
        identity, failure = self.identity, self.failure
        planned = bool(self.retiring) and ending.exitcode == 0
        return ExitReport(
            agent_id=identity.agent_id,
            agent_name=identity.agent_name,
            exitcode=ending.exitcode,
            reason=f"retired: {self.retiring}"
            if planned
            else describe_ending(ending, failure, self._killed_because, self._kills_before),
            requested=self._stopping or planned,
            lived=time.monotonic() - self.started_at,
            peak_memory_mb=ending.peak_memory_mb,
            cpu_seconds=ending.cpu_seconds,
            guild_id=identity.guild_id,
            generation=identity.generation,
            pid=self.pid,
            stacks=self._stacks(),
            last_lines=read_last_lines(self._crash) if self._crash >= 0 else "",
            traceback=failure.traceback if failure else "",
        )

    def start_failure(self, report: ExitReport) -> AgentStartError:
        """Return what `run_agent` raises."""
        return start_error(report, self.failure)

    def _plan(self, delay: float, action: Callable[[], None]) -> None:
        self._cancel_plan()
        self._timer = self._reactor.after(delay, action)

    def _cancel_plan(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def start_error(report: ExitReport, failure: Failed | None) -> AgentStartError:
    """Return the error of an agent that ended before it was ready; its cause is the agent's own."""
    if failure is not None:
        reason = f"{failure.error_type}: {failure.text}"
    elif report.requested:
        reason = "it was stopped before it was ready"
    else:
        reason = f"it {report.reason}"
    text = report.traceback
    if report.stacks:
        text += f"\n{report.stacks}"
    error = AgentStartError(
        agent_id=report.agent_id,
        agent_name=report.agent_name,
        reason=reason,
        exitcode=report.exitcode,
        remote_traceback=text,
    )
    if failure is not None and failure.exception is not None:
        try:
            error.__cause__ = pickle.loads(failure.exception)
        except Exception:
            logger.debug("the agent's exception does not load here", exc_info=True)
    return error


def _limit_in(error: OSError) -> str:
    if error.errno != errno.EMFILE:
        return str(error)
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return f"this program may open {soft} files (RLIMIT_NOFILE; hard limit {hard}), {error}"


def make_room_for_files(wanted: int) -> None:
    """Raise this program's soft limit of open files towards the hard one, where it is too low."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted and (hard == resource.RLIM_INFINITY or soft < hard):
        raised = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with contextlib.suppress(ValueError, OSError):  # then the limit is met, and named
            resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
