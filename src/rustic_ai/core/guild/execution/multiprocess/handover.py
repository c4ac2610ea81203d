"""What an agent's process gets from whoever starts it. Standard library only, as the nursery."""

from __future__ import annotations

import fcntl
import functools
import os
import signal
from typing import NamedTuple

_SET_SIGNAL = 10
"""F_SETSIG of fcntl.h, which Python does not name."""


class Handover(NamedTuple):
    """Descriptors, and the agent's slot in the table; -1 where there is none."""

    boot: int
    control: int
    crash: int
    table: int
    slot: int
    lifeline: int
    logs: int

    def descriptors(self) -> list[int]:
        """Return those that there are."""
        return [
            fd for name, fd in zip(self._fields, self, strict=True) if name != "slot" and fd >= 0
        ]


def arm_lifeline(pipe: int) -> None:
    """Have the kernel kill this process group (SIGKILL) once all write ends of `pipe` are closed.

    Engine and nursery hold one each, so it happens only when both are gone. Unlike
    PR_SET_PDEATHSIG it does not depend on which thread started us, and unlike a thread that
    watches it needs no GIL. Linux. Source: fcntl(2), F_SETOWN, F_SETSIG and O_ASYNC.
    """
    # A file description of our own: a signal has one owner per description.
    own = os.open(f"/proc/self/fd/{pipe}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.fcntl(own, fcntl.F_SETOWN, -os.getpid())  # negative: the group, which we lead
    fcntl.fcntl(own, _SET_SIGNAL, signal.SIGKILL)
    fcntl.fcntl(own, fcntl.F_SETFL, fcntl.fcntl(own, fcntl.F_GETFL) | os.O_ASYNC)
    os.close(pipe)


def show_as(title: str) -> None:
    """Show this process as `title` in ``ps`` and ``top``, within the room of its arguments. Linux.

    As setproctitle does: the memory that holds the arguments is overwritten.
    """
    start, end = place_of_arguments()
    text = title.encode()[: end - start - 1]
    memory = os.open("/proc/self/mem", os.O_RDWR | os.O_CLOEXEC)
    os.pwrite(memory, text.ljust(end - start, b"\0"), start)
    os.close(memory)
    comm = os.open("/proc/self/comm", os.O_WRONLY | os.O_CLOEXEC)
    os.write(comm, title.partition("\0")[0].removeprefix("rustic-agent:").encode()[:15])
    os.close(comm)


@functools.cache
def place_of_arguments() -> tuple[int, int]:
    """Return where in memory the arguments of this process begin and end; a fork has the same."""
    with open("/proc/self/stat", "rb") as stat:
        fields = stat.read().rpartition(b")")[2].split()
    return int(fields[45]), int(fields[46])


def title_of(agent_name: str, guild_id: str, table: int) -> str:
    """Return what an agent's process is shown as; `attach` finds the table by it."""
    return "\0".join([f"rustic-agent:{agent_name}", *marks_of(guild_id, table)]) + "\0"


def marks_of(guild_id: str, table: int) -> list[str]:
    """Return the arguments by which processes of an engine are found."""
    return [f"rustic-guild={guild_id}", f"rustic-table={table}"]
