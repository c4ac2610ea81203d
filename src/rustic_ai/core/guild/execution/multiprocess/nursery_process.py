"""A nursery, as the process that it is: started, and ended."""

from __future__ import annotations

import json
import logging
import os
import select
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from rustic_ai.core.guild.execution.multiprocess.handover import marks_of
from rustic_ai.core.guild.execution.multiprocess.nursery import PACKET, python_command

logger = logging.getLogger(__name__)

_WARM_UP = "rustic_ai.core.guild.execution.multiprocess.warm_up"
FRAMEWORK = (
    _WARM_UP,
    "rustic_ai.core.guild.execution.multiprocess.child",
    "rustic_ai.core.guild.builders",
    "rustic_ai.core.guild.guild",
    "rustic_ai.core.messaging.backend.embedded_backend.backend",
    "rustic_ai.core.messaging.backend.in_memory_backend",
    "asyncio",
)
"""What every agent, and the module of nearly every agent, imports."""
_BOOTSTRAP = (
    "import json,socket,sys;"
    "s=socket.socket(fileno={socket});"
    "c=json.loads(s.recv({size}));"
    "sys.path[:]=c['sys_path'];"
    "from rustic_ai.core.guild.execution.multiprocess.nursery import main;"
    "main(s,c)"
)
_END_DEADLINE = 5.0
_AT_INTERPRETER_START = (
    "PYTHON",
    "LD_",
    "MALLOC_",
    "OMP_",
    "OPENBLAS_",
    "MKL_",
    "NUMEXPR_",
    "CUDA_",
    "GLIBC_",
)
"""Prefixes of environment variables that interpreters and C libraries read only at their start."""
_NO_MATTER = frozenset({"PYTHONPATH"})
"""Its effect, ``sys.path``, is handed over."""


@dataclass(frozen=True, slots=True)
class NurserySettings:
    """How a nursery is to be."""

    guild_id: str
    fork: bool
    preload: tuple[str, ...]
    orphan_grace: float
    table: int
    """Descriptor of the shared table."""
    logs: int
    """Descriptor of the socket that log records are sent on, or -1."""


class NurseryProcess:
    """A nursery, started at construction, in the background: nothing here waits for it.

    Args:
        settings: how it is to be.
        lifeline: the pipe that ends agents when engine and nursery are gone; shared.
    """

    def __init__(self, settings: NurserySettings, lifeline: tuple[int, int]) -> None:
        self._environment = dict(os.environ)
        self.is_ready = False
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        self.socket = ours
        handed = [theirs.fileno(), *lifeline, settings.table]
        if settings.logs >= 0:
            handed.append(settings.logs)
        command = python_command(
            _BOOTSTRAP.format(socket=theirs.fileno(), size=PACKET),
            f"rustic-nursery:{settings.guild_id}",
            *marks_of(settings.guild_id, settings.table),
        )
        try:
            with theirs:
                self.process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, pass_fds=handed, start_new_session=True
                )
        except BaseException:
            ours.close()
            raise
        config = {
            "guild_id": settings.guild_id,
            "preload": [*FRAMEWORK, *settings.preload] if settings.fork else [],
            "warm_up": [_WARM_UP] if settings.fork else [],
            "orphan_grace": settings.orphan_grace,
            "table": settings.table,
            "logs": settings.logs,
            "lifeline": lifeline,
            "engine_pid": os.getpid(),
            "sys_path": [entry for entry in sys.path if isinstance(entry, str)],
        }
        ours.send(json.dumps(config).encode())

    def differing(self, environment: Mapping[str, str]) -> list[str]:
        """Return variables that an interpreter reads only at its start, and read otherwise here."""
        before = self._environment
        names = {n for n in (*before, *environment) if n.startswith(_AT_INTERPRETER_START)}
        return sorted(n for n in names - _NO_MATTER if before.get(n) != environment.get(n))

    def close(self) -> None:
        """Let it end, with all that it started; returns when it is gone."""
        self.socket.close()
        sentinel = os.pidfd_open(self.process.pid)  # Popen.wait with a timeout polls
        ended = select.poll()
        ended.register(sentinel, select.POLLIN)
        in_time = ended.poll(_END_DEADLINE * 1000)
        os.close(sentinel)
        if in_time:
            self.process.wait()
        else:
            logger.warning("the nursery %d did not end in time, killed", self.process.pid)
            self.kill()

    def kill(self) -> None:
        """End it at once; for one that has started nothing, or does not answer."""
        self.socket.close()
        self.process.kill()
        self.process.wait()
