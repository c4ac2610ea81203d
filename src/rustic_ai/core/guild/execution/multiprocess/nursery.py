"""The nursery: a small single-threaded process that is the parent of an engine's agents.

It imports the framework once, freezes its heap, and forks an agent whenever the engine asks. It
is never a copy of the user's program, so an agent inherits none of its threads, locks or files.
It reaps, is the child subreaper (a daemonised grandchild lands here), and when the engine is gone
it ends everything it started. The idea is that of Erlang's erl_child_setup and Android's zygote.

Standard library only, and nothing is imported once it is ready.

Engine and nursery talk in packets over a SOCK_SEQPACKET pair: `HEAD`, then what belongs to it.

    engine to nursery                           nursery to engine
    {...}   JSON: how to begin                  READY    JSON: failed preloads, threads
    FORK    token, slot, name; boot,            STARTED  token, pid; its pidfd
            control and crash descriptors       REFUSED  token, errno
    EXEC    the same, in a fresh interpreter    EXITED   pid, status, peak kB, CPU us
    ADOPT   pid, of a nursery that died; pidfd
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import traceback
from typing import Any, NoReturn

from rustic_ai.core.guild.execution.multiprocess.handover import (
    Handover,
    marks_of,
    place_of_arguments,
    show_as,
    title_of,
)

HEAD = struct.Struct("<c7xqqqq")
READY, STARTED, REFUSED, EXITED = b"r", b"s", b"n", b"x"
FORK, EXEC, ADOPT = b"f", b"e", b"a"
PACKET = 1 << 17
_DESCRIPTORS = 8
_PR_SET_CHILD_SUBREAPER = 36
_SWEEP_DEADLINE = 2.0

BOOTSTRAP = (
    "import json,sys;"
    "boot=open({handover[0]},'rb');"
    "sys.path[:]=json.loads(boot.readline())['sys_path'];"
    "from rustic_ai.core.guild.execution.multiprocess.child import main;"
    "main(boot,{handover!r})"
)
"""What a fresh interpreter runs to become an agent."""


def main(sock: socket.socket, config: dict[str, Any]) -> NoReturn:
    """Be the nursery until the engine is gone."""
    gc.disable()  # a collection would only punch holes into pages that agents share
    failed = _preload(config["preload"])
    for module in config["warm_up"]:
        sys.modules[module].warm_up()
    place_of_arguments()
    gc.collect()
    gc.freeze()
    others = [t.name for t in threading.enumerate() if t is not threading.main_thread()]
    nursery = Nursery(sock, config, can_fork=not others)
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        nursery.tell(READY, body=json.dumps({"failed": failed, "threads": others}).encode())
        nursery.serve()
    nursery.end_all()
    os._exit(0)


def _preload(modules: list[str]) -> list[str]:
    failed = []
    for name in modules:
        try:
            importlib.import_module(name)
        except BaseException as e:  # noqa: BLE001 - an import may raise anything; the engine tells
            failed.append(f"{name}: {type(e).__name__}: {e}")
    return failed


def python_command(code: str, *arguments: str) -> list[str]:
    """Return the command that runs code with this interpreter's own flags."""
    flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]  # noqa: SLF001
    return [sys.executable, *flags, "-c", code, *arguments]


class Nursery:
    """Starts and reaps; one thread, one poll."""

    def __init__(self, sock: socket.socket, config: dict[str, Any], *, can_fork: bool) -> None:
        self._sock = sock
        self._guild: str = config["guild_id"]
        self._grace: float = config["orphan_grace"]
        self._table: int = config["table"]
        self._logs: int = config["logs"]
        self._lifeline: list[int] = config["lifeline"]
        self._can_fork = can_fork
        self._agents: set[int] = set()
        self._adopted: dict[int, int] = {}
        self._wake, self._waker = os.pipe()
        os.set_blocking(self._wake, False)
        os.set_blocking(self._waker, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # it ends when its engine does
        signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
        _become_subreaper()
        # Sees the end of the engine even where a copy of it holds the socket open.
        try:
            self._engine = os.pidfd_open(config["engine_pid"])
        except ProcessLookupError:  # gone while we loaded: our end of the lifeline is the last
            os._exit(0)
        self._poll = select.poll()
        for fd in (sock.fileno(), self._wake, self._engine):
            self._poll.register(fd, select.POLLIN)

    def tell(
        self, kind: bytes, *numbers: int, body: bytes = b"", fds: tuple[int, ...] = ()
    ) -> None:
        """Send the engine a packet."""
        head = HEAD.pack(kind, *numbers, *(0,) * (4 - len(numbers)))
        socket.send_fds(self._sock, [head + body], fds)

    def serve(self) -> None:
        """Do what the engine asks.

        Raises:
            EOFError: it is gone.
        """
        while True:
            for fd, _ in self._poll.poll():
                if fd == self._sock.fileno():
                    self._obey()
                elif fd == self._wake:
                    self._reap()
                elif fd == self._engine:
                    raise EOFError
                else:
                    self._adopted_ended(fd)

    def _obey(self) -> None:
        packet, fds, _, _ = socket.recv_fds(self._sock, PACKET, _DESCRIPTORS)
        if not packet:
            raise EOFError
        kind, number, slot, _, _ = HEAD.unpack_from(packet)
        if kind in (FORK, EXEC):
            self._start(kind, number, slot, packet[HEAD.size :].decode(), fds)
        elif kind == ADOPT:
            self._adopted[fds[0]] = number
            self._poll.register(fds[0], select.POLLIN)

    def _start(self, kind: bytes, token: int, slot: int, name: str, fds: list[int]) -> None:
        boot, control, crash = fds
        handover = Handover(boot, control, crash, self._table, slot, self._lifeline[0], self._logs)
        try:
            if kind == FORK and self._can_fork:
                pid = os.fork()
                if pid == 0:
                    self._become_agent(handover, name)
            else:
                pid = self._exec(handover, name)
        except OSError as e:  # EAGAIN, ENOMEM: this start fails, the nursery lives on
            self.tell(REFUSED, token, e.errno or 0)
            return
        finally:
            for fd in fds:
                os.close(fd)
        self._agents.add(pid)
        sentinel = os.pidfd_open(pid)
        self.tell(STARTED, token, pid, fds=(sentinel,))
        os.close(sentinel)

    def _exec(self, handover: Handover, name: str) -> int:
        with open(handover.boot, "rb", buffering=0, closefd=False) as boot:
            first = json.loads(boot.readline())
            boot.seek(0)
        process = subprocess.Popen(
            python_command(
                BOOTSTRAP.format(handover=tuple(handover)),
                f"rustic-agent:{name}",
                *marks_of(self._guild, handover.table),
            ),
            stdin=subprocess.DEVNULL,
            pass_fds=handover.descriptors(),
            env=first["env"],
            start_new_session=True,
        )
        process.returncode = 0  # ours to reap, not Popen's
        return process.pid

    def _become_agent(self, handover: Handover, name: str) -> NoReturn:
        code = 70
        try:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_DFL)
            os.setsid()
            self._sock.close()
            for fd in (self._wake, self._waker, self._engine, self._lifeline[1], *self._adopted):
                os.close(fd)
            atexit._clear()  # noqa: SLF001 - what preloaded modules registered is the nursery's, not the agent's
            gc.freeze()  # what the nursery made since: the first collection would copy its pages
            gc.enable()
            numpy_random = sys.modules.get("numpy.random")
            if numpy_random is not None:  # unlike `random`, it does not see the fork itself
                numpy_random.seed()
            with contextlib.suppress(OSError):  # only for people's eyes
                show_as(title_of(name, self._guild, handover.table))
            from rustic_ai.core.guild.execution.multiprocess.child import main

            boot = open(handover.boot, "rb")  # noqa: SIM115 - the agent closes it
            boot.readline()
            main(boot, handover)
        except BaseException:  # noqa: BLE001 - must not get back into the nursery's loop
            traceback.print_exc()
        finally:
            os._exit(code)

    def _reap(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake, 4096)
        while (pid := _ended_child()) is not None:
            if pid in self._agents:
                # Before the wait, while the dead leader still holds its pid and group.
                _send_signal(pid, signal.SIGKILL, group=True)
            _, status, usage = os.wait4(pid, 0)
            if pid in self._agents:
                self._agents.discard(pid)
                cpu = int((usage.ru_utime + usage.ru_stime) * 1e6)
                self.tell(EXITED, pid, status, usage.ru_maxrss, cpu)

    def _adopted_ended(self, sentinel: int) -> None:
        pid = self._adopted.pop(sentinel)
        self._poll.unregister(sentinel)
        os.close(sentinel)
        _send_signal(pid, signal.SIGKILL, group=True)

    def end_all(self) -> None:
        """End every agent (SIGTERM, and SIGKILL after the grace), and whatever they left."""
        self._sock.close()
        groups = [*self._agents, *self._adopted.values()]
        for pid in groups:
            _send_signal(pid, signal.SIGTERM, group=True)
            _send_signal(pid, signal.SIGCONT, group=True)  # a stopped process could not obey
        self._wait_for_ends(self._grace)
        for pid in groups:
            _send_signal(pid, signal.SIGKILL, group=True)
        deadline = time.monotonic() + _SWEEP_DEADLINE
        while (left := _children()) and time.monotonic() < deadline:
            for pid in left:
                _send_signal(pid, signal.SIGKILL, group=False)
            self._wait_for_ends(0.05, until_first=True)

    def _wait_for_ends(self, seconds: float, *, until_first: bool = False) -> None:
        ends = select.poll()
        for fd in (self._wake, *self._adopted):
            ends.register(fd, select.POLLIN)
        deadline = time.monotonic() + seconds
        self._collect()
        while until_first or self._agents or self._adopted:
            left = deadline - time.monotonic()
            if left <= 0:
                return
            for fd, _ in ends.poll(left * 1000):
                if fd == self._wake:
                    self._collect()
                else:
                    ends.unregister(fd)
                    self._adopted_ended(fd)
            if until_first:
                return

    def _collect(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake, 4096)
        while (pid := _ended_child()) is not None:
            _send_signal(pid, signal.SIGKILL, group=True)
            os.wait4(pid, 0)
            self._agents.discard(pid)


def _ended_child() -> int | None:
    try:
        found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    return found.si_pid if found is not None else None


def _send_signal(pid: int, number: int, *, group: bool) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        (os.killpg if group else os.kill)(pid, number)


def _become_subreaper() -> None:
    import ctypes

    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _children() -> list[int]:
    """Return the pids of our children, those included that we got from processes that ended."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{entry}/stat", "rb") as stat:
                if int(stat.read().rpartition(b")")[2].split()[1]) == os.getpid():
                    found.append(int(entry))
    return found
