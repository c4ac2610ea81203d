"""Ways to make an agent's process. Here: a fresh interpreter for each.

The nursery, which forks agents from a small preloaded process, will stand beside it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from rustic_ai.core.guild.execution.multiprocess.boot import PackedLaunch, write_boot_file
from rustic_ai.core.guild.execution.multiprocess.channel import Channel
from rustic_ai.core.messaging.core.messaging_config import MessagingConfig

_BOOTSTRAP = (
    "import json,sys;"
    "boot=open({boot},'rb');"
    "sys.path[:]=json.loads(boot.readline());"
    "from rustic_ai.core.guild.execution.multiprocess.child import main;"
    "main(boot,{control})"
)


@dataclass(frozen=True, slots=True)
class Ending:
    """How the kernel says a process ended; negative exit code for a signal."""

    exitcode: int
    peak_memory_mb: float
    cpu_seconds: float


class Launcher(Protocol):
    """Makes agent processes."""

    def start(
        self, packed: PackedLaunch, messaging: MessagingConfig, orphan_grace: float
    ) -> AgentProcess:
        """Start a process for the agent; returns before it is ready.

        Raises:
            OSError: the system refuses another process.
        """


class SpawnLauncher:
    """Starts a fresh interpreter: nothing of this program's threads, locks or files gets in.

    It has the environment, working directory and ``sys.path`` of the moment of launch, and leads
    a session of its own, so that Ctrl-C at the terminal reaches only this program.
    """

    def start(
        self, packed: PackedLaunch, messaging: MessagingConfig, orphan_grace: float
    ) -> AgentProcess:
        """Start an interpreter that runs `child.main`."""
        boot = write_boot_file(packed, messaging, orphan_grace)
        ours, theirs = socket.socketpair()
        with boot, theirs:
            try:
                process = _spawn(boot, theirs, packed.agent.name)
            except BaseException:
                ours.close()
                raise
        ours.setblocking(False)
        return AgentProcess(process.pid, Channel(ours), process)


def _spawn(boot: BinaryIO, control: socket.socket, name: str) -> subprocess.Popen[bytes]:
    code = _BOOTSTRAP.format(boot=boot.fileno(), control=control.fileno())
    flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]  # noqa: SLF001
    return subprocess.Popen(  # the last argument only tells people whose process this is
        [sys.executable, *flags, "-c", code, f"rustic-agent:{name}"],
        stdin=subprocess.DEVNULL,
        pass_fds=(boot.fileno(), control.fileno()),
        start_new_session=True,
    )


class AgentProcess:
    """A child of ours: its pid stays its own until `reap`, so signals never hit a stranger."""

    def __init__(self, pid: int, channel: Channel, process: subprocess.Popen[bytes]) -> None:
        self.pid = pid
        self.channel = channel
        self._process = process
        self._sentinel = _open_sentinel(pid)

    def fileno(self) -> int:
        """Return the sentinel: a descriptor that is readable once the process has ended."""
        return self._sentinel

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process and whatever it has started in its group."""
        with contextlib.suppress(ProcessLookupError, PermissionError):  # ended: EPERM on macOS
            os.killpg(self.pid, number)

    def reap(self) -> Ending:
        """Collect the process, which has ended; what it left in its group is killed."""
        # Before the wait, while the dead leader still holds pid and group.
        self.signal(signal.SIGKILL)
        _, status, usage = os.wait4(self.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        self._process.returncode = code  # collected by us: Popen need not look for it
        unit = 1 if sys.platform == "darwin" else 1024
        return Ending(code, usage.ru_maxrss * unit / 1e6, usage.ru_utime + usage.ru_stime)

    def close(self) -> None:
        """Give the descriptors back."""
        self.channel.close()
        os.close(self._sentinel)


def _open_sentinel(pid: int) -> int:
    if hasattr(os, "pidfd_open"):
        return os.pidfd_open(pid)
    reader, writer = os.pipe()

    def wait_for_end() -> None:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        os.close(writer)

    threading.Thread(target=wait_for_end, name=f"rustic-wait-{pid}", daemon=True).start()
    return reader
