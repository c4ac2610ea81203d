"""One actor of an agent, seen by the engine: from its creation to its exit report."""

from __future__ import annotations

import contextlib
import os
import re
import select
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from rustic_ai.core.errors import AgentStartError, DuplicateAgentError, GuildError
from rustic_ai.core.guild.execution.multiprocess.exit_report import describe_ending
from rustic_ai.core.guild.execution.multiprocess.exit_status import exit_status
from rustic_ai.core.guild.execution.multiprocess.launchers import Ending
from rustic_ai.core.guild.execution.multiprocess.life import start_error
from rustic_ai.core.guild.execution.stats import ExitReport
from rustic_ai.core.guild.execution.supervision.agent import LifeOwner
from rustic_ai.core.guild.execution.supervision.reactor import Reactor, Timer
from rustic_ai.ray.cluster import Cluster
from rustic_ai.ray.installed import import_ray, machine
from rustic_ai.ray.order import Outcome, Started
from rustic_ai.ray.placement import create_actor, missing
from rustic_ai.ray.wish import Wish

_NAME_DEADLINE = 5.0
"""Seconds in which Ray must let go of the name of an actor that has ended."""
_NAME_PERIOD = 0.02
_KILL_DEADLINE = 10.0
"""Seconds after `ray.kill` in which Ray must tell of the end."""
_GONE_DEADLINE = 1.0
"""The same, where there is nobody who could tell: the head of the cluster is gone."""
_STATUS_DEADLINE_MS = 500
_WITH_NODE = "died with its Ray node"


class ActorLife:
    """One actor; everything happens on the reactor's thread.

    Args:
        wish: the agent.
        generation: the how-manieth actor of the agent it is.
        cluster: where it is to run.
        reactor: where everything happens.
        start_timeout: seconds from creation to ready; waiting for resources counts.
        owner: is told what becomes of it.
    """

    def __init__(
        self,
        wish: Wish,
        generation: int,
        cluster: Cluster,
        reactor: Reactor,
        start_timeout: float,
        owner: LifeOwner,
    ) -> None:
        self._wish = wish
        self._generation = generation
        self._cluster = cluster
        self._reactor = reactor
        self._start_timeout = start_timeout
        self._owner = owner
        self.started_at = time.monotonic()
        self.ready_at: float | None = None
        self.where: Started | None = None
        self.handle: Any = None
        self.outcome: Outcome | None = None
        self.error: GuildError | None = None
        """Why there is no actor, where its creation failed."""
        self._killed_because = ""
        self._requested = self._ended = False
        self._trouble = ""
        self._pidfd: int | None = None
        self._timers: list[Timer] = []

    # From the owner

    @property
    def retiring(self) -> str:
        """Why it ends by itself, for another to follow at once; empty: it does not."""
        return self.outcome.retiring if self.outcome is not None else ""

    def begin(self) -> None:
        """Have the actor made."""
        self._after(self._start_timeout, self._start_is_late)
        self._create(time.monotonic() + _NAME_DEADLINE)

    def stop(self, grace: float) -> None:
        """Ask it to end; it is killed if it has not in so many seconds."""
        self._requested = True
        if self.where is None:  # nobody serves yet who could hear it
            self.kill("")
            return
        if self._has_connection():
            self._call("stop", "control")
        self._after(grace, lambda: self.kill(f"it did not stop within {grace:g} s"))

    def kill(self, because: str) -> None:
        """End it now."""
        if self._ended:
            return
        self._killed_because = self._killed_because or because
        if self.handle is None or not self._has_connection():
            self._finish()
            return
        import_ray().kill(self.handle, no_restart=True)
        deadline = _KILL_DEADLINE if self._cluster.is_there else _GONE_DEADLINE
        self._after(deadline, lambda: self._is_silent(deadline))

    # What happens to it

    def _create(self, deadline: float) -> None:
        if self._ended:
            return
        wish = self._wish
        try:
            self._cluster.require()
            self.handle = create_actor(wish.actor_name, wish.placement, wish.runtime_env)
        except GuildError as e:
            self._fail(e)
        except Exception as e:  # noqa: BLE001 - Ray's own errors have no common base
            if "already taken" not in str(e):
                self._fail(self._refused(f"{type(e).__name__}: {e}"), e)
            elif time.monotonic() > deadline:
                self._fail(DuplicateAgentError(guild_id=wish.guild_id, agent_id=wish.agent_id), e)
            else:  # its predecessor has ended, and Ray forgets it soon
                self._after(_NAME_PERIOD, lambda: self._create(deadline))
        else:
            self._when(self._call("start", "", wish.order), self._has_started)
            self._when(self._call("hold", "sentinel"), self._is_gone)

    def _has_started(self, answer: Future[Any]) -> None:
        if self._ended or answer.exception() is not None:  # the sentinel tells more
            return
        told = answer.result()
        if isinstance(told, Outcome):
            self._has_served(answer)
            return
        self.where = told
        self._cancel_timers()
        if self._requested or self._killed_because:
            self.kill("")
            return
        self.ready_at = time.monotonic()
        self._open_pidfd(told)
        self._when(self._call("live"), self._has_served)
        if self._wish.memory is not None:
            watch = self._call("watch_memory", "memory", self._wish.memory)
            self._when(watch, self._eats_too_much)
        self._owner.life_ready()

    def _has_served(self, answer: Future[Any]) -> None:
        if answer.exception() is None:
            self.outcome = answer.result()
            self.kill("")  # it has nothing to do any more

    def _eats_too_much(self, answer: Future[Any]) -> None:
        if answer.exception() is None:
            self.kill(answer.result())

    def _is_gone(self, answer: Future[Any]) -> None:
        if self._ended:
            return
        error = answer.exception()
        if type(error).__name__ == "ActorUnavailableError" and self._has_connection():
            self._has_lost_it()
            return
        self._trouble = self._trouble or _short(str(error))
        self._finish()

    def _has_lost_it(self) -> None:
        """Have it killed, for it may live, and two of it must not."""
        if not self._trouble:
            node = self.where.node[:12] if self.where is not None else "not known yet"
            self._trouble = f"was lost: Ray has no connection to it any more (node {node})"
        self.kill("")
        self._when(self._call("hold", "sentinel"), self._is_gone)

    def _start_is_late(self) -> None:
        if self.where is not None:
            return
        why = f"it was not ready within {self._start_timeout:g} s"
        try:
            self._cluster.require()
        except GuildError as e:
            self._fail(e)
            return
        self.kill(f"{why} ({missing(self._wish.placement)})")

    def _is_silent(self, deadline: float) -> None:
        if not self._trouble:
            self._trouble = f"was killed, but Ray did not tell of its end within {deadline:g} s"
        self._finish()

    def _fail(self, error: GuildError, cause: Exception | None = None) -> None:
        error.__cause__ = cause
        self.error = error
        self._trouble = f"was not made: {error.describe()}"
        self._finish()

    def _finish(self) -> None:
        if self._ended:
            return
        self._ended = True
        self._cancel_timers()
        report = self._report()
        if self.handle is not None and self._cluster.is_connected:
            # Ray keeps the name of an actor that died by itself, until it is told to kill it.
            import_ray().kill(self.handle, no_restart=True)
        self.handle = None
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None
        self._owner.life_ended(report)

    def _has_connection(self) -> bool:
        if not self._cluster.is_connected:
            self._trouble = "was lost: the program's connection to Ray was closed (ray.shutdown)"
            self._finish()
        return self._cluster.is_connected

    # Words

    def _report(self) -> ExitReport:
        wish, where = self._wish, self.where
        outcome = self.outcome
        failure = outcome.failure if outcome is not None else None
        code = outcome.exitcode if outcome is not None else self._exit_code()
        ending = Ending(code, trouble=self._trouble)
        if self.retiring:
            reason = f"was retired: {self.retiring}"
        elif self._trouble.startswith((_WITH_NODE, "was lost")) and not self._killed_because:
            reason = self._trouble
        else:
            reason = describe_ending(ending, failure, self._killed_because)
        return ExitReport(
            wish.agent_id,
            wish.agent_name,
            code,
            reason,
            requested=self._requested,
            lived=time.monotonic() - self.started_at,
            peak_memory_mb=outcome.peak_memory_mb if outcome is not None else None,
            cpu_seconds=outcome.cpu_seconds if outcome is not None else None,
            guild_id=wish.guild_id,
            generation=self._generation,
            pid=where.pid if where is not None else None,
            message_id=outcome.message_id if outcome is not None else None,
            traceback=failure.traceback if failure is not None else "",
            was_ready=self.ready_at is not None,
        )

    def start_failure(self, report: ExitReport) -> GuildError:
        """Return what `run_agent` raises."""
        if self.error is not None:
            return self.error
        failure = self.outcome.failure if self.outcome is not None else None
        error = start_error(report, failure)
        if failure is not None and failure.error_type in {
            "BackendUnavailableError",
            "AccessError",
        }:
            error.hint = (
                "an agent may run on any node of the cluster: give messages an address (and an "
                "embedded server's token) that all nodes reach, or use Redis or NATS"
            )
        return error

    def _refused(self, reason: str) -> AgentStartError:
        return AgentStartError(
            agent_id=self._wish.agent_id,
            agent_name=self._wish.agent_name,
            reason=f"Ray refused its actor: {reason}",
            hint="look at the engine's runtime_env" if self._wish.runtime_env else "",
        )

    # The process behind it

    def _open_pidfd(self, where: Started) -> None:
        """Be told of its end by the kernel, too, where it is the same: Ray tells no exit code."""
        if where.machine and where.machine == machine() and hasattr(os, "pidfd_open"):
            with contextlib.suppress(OSError):  # it has ended already
                self._pidfd = os.pidfd_open(where.pid)

    def _exit_code(self) -> int | None:
        if self._pidfd is None or self.where is None:
            return None
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        poll.poll(_STATUS_DEADLINE_MS)  # Ray has seen it end: this is a matter of microseconds
        status = exit_status(self.where.pid, self._pidfd)
        return None if status is None else os.waitstatus_to_exitcode(status)

    # Tools

    def _call(self, method: str, group: str = "", *arguments: Any) -> Any:
        function = getattr(self.handle, method)
        if group:
            function = function.options(concurrency_group=group)
        return function.remote(*arguments)

    def _when(self, reference: Any, action: Callable[[Future[Any]], None]) -> None:
        future: Future[Any] = reference.future()
        future.add_done_callback(lambda done: self._reactor.post(lambda: action(done)))

    def _after(self, delay: float, action: Callable[[], None]) -> None:
        self._timers.append(self._reactor.after(delay, action))

    def _cancel_timers(self) -> None:
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()


def _short(text: str) -> str:
    """Return of Ray's words on a death what is about this one."""
    node = re.search(r"its node has died\. Node Id: (\w+)\s*(.*)", text)
    if node:
        return f"{_WITH_NODE} {node[1][:12]}: {node[2].strip() or 'the node is gone'}"
    if "memory" in text and "OOM killer due to" not in text:
        return f"was killed by Ray for lack of memory: {text.strip().splitlines()[-1]}"
    detail = re.search(r"Worker exit detail: (.*?)(?: Some common causes|$)", text, re.DOTALL)
    if detail:
        return f"died; Ray says: {detail[1].strip()}"
    lines = text.strip().splitlines()
    return f"died; Ray says: {lines[-1] if lines else 'nothing'}"
