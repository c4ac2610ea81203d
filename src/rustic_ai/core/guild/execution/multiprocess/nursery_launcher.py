"""The engine's side of the nursery: requests out, news in, and another nursery when one dies."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import select
import signal
import socket
from collections import deque
from collections.abc import Mapping

from rustic_ai.core.forking import guard_forks
from rustic_ai.core.guild.execution.multiprocess.exit_status import exit_status
from rustic_ai.core.guild.execution.multiprocess.launchers import (
    AgentProcess,
    Ending,
    Errand,
    ProcessWatcher,
)
from rustic_ai.core.guild.execution.multiprocess.nursery import (
    ADOPT,
    EXEC,
    EXITED,
    FORK,
    HEAD,
    PACKET,
    READY,
    REFUSED,
    STARTED,
)
from rustic_ai.core.guild.execution.multiprocess.nursery_process import (
    NurseryProcess,
    NurserySettings,
)
from rustic_ai.core.guild.execution.supervision.reactor import Reactor, Timer

logger = logging.getLogger(__name__)

_MAX_STARTING = 64
_MAX_EXECS = 2 * (os.cpu_count() or 1)
_END_DEADLINE = 5.0
_NEWS_DEADLINE = 1.0
"""Seconds from a pidfd's word that a process has ended to that of the nursery."""


class NurseryLauncher:
    """Has a nursery start agents' processes. Linux.

    Args:
        reactor: where news of the nursery arrive.
        settings: how a nursery is to be.
        nursery: the first one; this object's from now on, as is the pipe.
        lifeline: the pipe that ends agents when engine and nursery are gone.
    """

    def __init__(
        self,
        reactor: Reactor,
        settings: NurserySettings,
        nursery: NurseryProcess,
        lifeline: tuple[int, int],
    ) -> None:
        self.max_starting = _MAX_STARTING if settings.fork else _MAX_EXECS
        self._reactor = reactor
        self._settings = settings
        self._lifeline = lifeline
        self._lifeline_held: tuple[int, ...] = lifeline
        self._nursery = nursery
        self._output: deque[tuple[bytes, list[int]]] = deque()
        self._waiting: dict[int, _NurseryProcess] = {}
        self._running: dict[int, _NurseryProcess] = {}
        self._tokens = 0
        self._closing = False
        self._told: set[str] = set()
        guard_forks(self)
        reactor.post(self._watch)

    @property
    def pid(self) -> int:
        """The pid of the nursery."""
        return self._nursery.process.pid

    def start(self, errand: Errand, watcher: ProcessWatcher) -> AgentProcess:
        """Ask the nursery for a process."""
        self._tokens += 1
        process = _NurseryProcess(self, watcher)
        self._waiting[self._tokens] = process
        kind = FORK if self._may_fork(errand) else EXEC
        lent = (errand.boot, errand.control, errand.crash)
        self._send(kind, self._tokens, errand.slot, body=errand.agent_name.encode(), fds=lent)
        return process

    def close(self) -> None:
        """End the nursery; returns when it is gone."""
        self._closing = True
        self._reactor.unwatch(self._nursery.socket)
        self._drop_output()
        self._nursery.close()
        self._close_lifeline()

    def close_in_fork(self) -> None:
        """Let a forked copy of the program hold nothing whose end tells the nursery something."""
        self._nursery.socket.close()
        self._drop_output()
        self._close_lifeline()

    def _close_lifeline(self) -> None:
        fds, self._lifeline_held = self._lifeline_held, ()  # once: the numbers are given anew
        for fd in fds:
            os.close(fd)

    # Out

    def _watch(self) -> None:
        if not self._closing:
            self._reactor.watch(self._nursery.socket, self._hear)
            self._flush()

    def _may_fork(self, errand: Errand) -> bool:
        if not self._settings.fork:
            return False
        differing = self._nursery.differing(errand.environment)
        if differing:
            self._tell_once(
                f"agent {errand.agent_name!r} gets a fresh interpreter, since "
                f"{', '.join(differing)} changed after the engine was made"
            )
        return not differing

    def _tell_once(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            logger.warning("%s", text)

    def _send(self, kind: bytes, *numbers: int, body: bytes = b"", fds: tuple[int, ...]) -> None:
        """Queue a packet. Never blocks: with both sides waiting to send, nobody would read."""
        head = HEAD.pack(kind, *numbers, *(0,) * (4 - len(numbers)))
        self._output.append((head + body, [os.dup(fd) for fd in fds]))
        self._flush()

    def _flush(self) -> None:
        while self._output:
            packet, fds = self._output[0]
            try:
                socket.send_fds(self._nursery.socket, [packet], fds)
            except BlockingIOError:
                break
            except OSError as e:
                if e.errno == errno.ETOOMANYREFS:  # too many descriptors in flight: it will read
                    break
                logger.debug("the nursery takes nothing more: %s", e)  # its end is on the way
                break
            self._output.popleft()
            for fd in fds:
                os.close(fd)
        self._reactor.watch_writable(self._nursery.socket, wanted=bool(self._output))

    def _drop_output(self) -> None:
        for _, fds in self._output:
            for fd in fds:
                os.close(fd)
        self._output.clear()

    # In

    def _hear(self) -> None:
        while True:
            try:
                packet, fds, _, _ = socket.recv_fds(self._nursery.socket, PACKET, 1)
            except BlockingIOError:
                break
            except OSError:
                packet, fds = b"", []
            if not packet:
                self._nursery_ended()
                return
            self._take(packet, fds)
        if self._output:
            self._flush()

    def _take(self, packet: bytes, fds: list[int]) -> None:
        kind, number, *rest = HEAD.unpack_from(packet)
        if kind == STARTED:
            self._started(self._waiting.pop(number), rest[0], fds)
        elif kind == REFUSED:
            trouble = f"the system refuses another process: {os.strerror(rest[0])}"
            self._waiting.pop(number).ended(Ending(None, trouble=trouble + _limit_of(rest[0])))
        elif kind == EXITED:
            status, peak, cpu, *_ = rest
            process_ended = self._running.pop(number, None)
            if process_ended is not None:
                code = os.waitstatus_to_exitcode(status)
                process_ended.ended(Ending(code, peak * 1024 / 1e6, cpu / 1e6))
        elif kind == READY:
            self._nursery.is_ready = True
            self._hear_ready(json.loads(packet[HEAD.size :]))

    def _started(self, process: _NurseryProcess, pid: int, fds: list[int]) -> None:
        if fds:
            self._running[pid] = process
            process.started(pid, fds[0])
            return
        # This program may open no more files: the kernel dropped the pidfd on its way here.
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        trouble = f"could not be started: {os.strerror(errno.EMFILE)}{_limit_of(errno.EMFILE)}"
        process.ended(Ending(None, trouble=trouble))

    def _hear_ready(self, facts: Mapping[str, list[str]]) -> None:
        for failure in facts["failed"]:
            logger.warning("preload failed, agents import it themselves: %s", failure)
        if facts["threads"]:
            self._tell_once(
                "agents get fresh interpreters, since preloaded modules left threads running: "
                + ", ".join(facts["threads"])
            )

    def _nursery_ended(self) -> None:
        """Start another, which adopts the agents; what was being started is lost."""
        self._reactor.unwatch(self._nursery.socket)
        self._drop_output()
        self._nursery.kill()
        code = self._nursery.process.returncode
        when = "" if self._nursery.is_ready else " before it was ready"
        logger.warning("the nursery ended%s with exit code %d, starting another", when, code)
        lost = list(self._waiting.values())
        self._waiting.clear()
        trouble = f"the nursery ended{when}"
        self._nursery = NurseryProcess(self._settings, self._lifeline)
        self._watch()
        for pid, process in self._running.items():
            self._send(ADOPT, pid, fds=(process.fileno(),))
            process.lose_nursery()
        for process in lost:
            process.ended(Ending(None, trouble=trouble, lost=True))

    def forget(self, pid: int) -> None:
        """Expect no more news of a process."""
        self._running.pop(pid, None)

    def replace_nursery(self) -> None:
        """End a nursery that does not answer."""
        self._nursery.process.kill()

    @property
    def reactor(self) -> Reactor:
        """Where everything happens."""
        return self._reactor


class _NurseryProcess:
    """A process that a nursery starts. The engine signals it itself: it holds its pidfd."""

    def __init__(self, launcher: NurseryLauncher, watcher: ProcessWatcher) -> None:
        self.pid: int | None = None
        self._launcher = launcher
        self._watcher = watcher
        self._sentinel = -1
        self._early: list[tuple[signal.Signals, bool]] = []
        self._has_nursery = True
        self._news: Timer | None = None
        self._over = False

    def fileno(self) -> int:
        """Return the pidfd."""
        return self._sentinel

    def started(self, pid: int, sentinel: int) -> None:
        """Take note that it exists."""
        self.pid = pid
        self._sentinel = sentinel
        self._launcher.reactor.watch(self, self._sentinel_fired)
        self._watcher.process_started()
        for number, group in self._early:
            self.signal(number, group=group)

    def signal(self, number: signal.Signals, *, group: bool = True) -> None:
        """Send a signal: now, or as soon as there is a process."""
        if self._over:
            return
        if self.pid is None:
            self._early.append((number, group))
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if not group:
                signal.pidfd_send_signal(self._sentinel, number)
            elif not _is_over(self._sentinel):  # alive: the group's number is not another's
                try:
                    os.killpg(self.pid, number)
                except ProcessLookupError:  # it was just forked, and has no group of its own yet
                    signal.pidfd_send_signal(self._sentinel, number)

    def give_up(self) -> None:
        """Stop waiting for it."""
        if self.pid is None:
            self._launcher.replace_nursery()
        else:
            self._launcher.forget(self.pid)
            self.ended(Ending(None, trouble="did not end after SIGKILL"))

    def ended(self, ending: Ending) -> None:
        """Pass the end on."""
        if self._over:
            return
        self._over = True
        if self._news is not None:
            self._news.cancel()  # else it keeps everything of this process for its time
        if self._sentinel >= 0:
            self._launcher.reactor.unwatch(self)
            os.close(self._sentinel)
        self._watcher.process_ended(ending)

    def lose_nursery(self) -> None:
        """Rely on the pidfd alone from now on: the parent is gone."""
        self._has_nursery = False

    def _sentinel_fired(self) -> None:
        # The exit status is the nursery's to tell; without it, what the kernel still says counts.
        self._launcher.reactor.unwatch(self)
        if self._has_nursery:
            self._news = self._launcher.reactor.after(_NEWS_DEADLINE, self._end_without_news)
        else:
            self._end_without_news()

    def _end_without_news(self) -> None:
        if self._over:
            return
        assert self.pid is not None
        self._launcher.forget(self.pid)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)  # what it left; before its number is given anew
        status = exit_status(self.pid, self._sentinel)
        if status is None:
            self.ended(Ending(None, trouble="ended while no nursery was there to tell how"))
        else:
            self.ended(Ending(os.waitstatus_to_exitcode(status)))


def _is_over(pidfd: int) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def _limit_of(number: int) -> str:
    limits = {
        errno.EAGAIN: " (limit of processes: RLIMIT_NPROC, or pids.max of the control group)",
        errno.ENOMEM: " (out of memory)",
        errno.EMFILE: " (limit of open files: RLIMIT_NOFILE)",
        errno.ENFILE: " (limit of open files of the system)",
    }
    return limits.get(number, "")
