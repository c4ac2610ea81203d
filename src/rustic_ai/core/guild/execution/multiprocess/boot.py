"""What an agent's process is given at its start, in an anonymous file that it inherits.

The first line is JSON that a bare interpreter can read (environment, ``sys.path``); then a line of
JSON, the `BootHeader`; then the pickled `AgentLaunch` and `MessagingConfig`. A file takes any size
without anybody waiting for a reader.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import pickle
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from rustic_ai.core.guild.execution.host import AgentLaunch
from rustic_ai.core.guild.execution.multiprocess.main_module import MainModule
from rustic_ai.core.guild.execution.multiprocess.pickle_path import pickle_launch
from rustic_ai.core.guild.spec import AgentSpec
from rustic_ai.core.messaging.core.messaging_config import MessagingConfig


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What an agent's process shares with the moment of its launch."""

    environment: dict[str, str]
    sys_path: list[str]
    directory: str | None

    @classmethod
    def now(cls) -> Surroundings:
        """Look at this program."""
        directory: str | None = None
        with contextlib.suppress(FileNotFoundError):  # deleted: agents start where their parent is
            directory = str(Path.cwd())
        return cls(dict(os.environ), [p for p in sys.path if isinstance(p, str)], directory)


@dataclass(frozen=True, slots=True)
class PackedLaunch:
    """An agent, packed for its process."""

    guild_id: str
    agent: AgentSpec
    payload: bytes
    main: MainModule | None
    surroundings: Surroundings

    @classmethod
    def pack(cls, launch: AgentLaunch, surroundings: Surroundings) -> PackedLaunch:
        """Pickle it, and see whether it needs the program's ``__main__``.

        Raises:
            NotPicklableError: the launch cannot travel.
            SpecError: it needs a class of an interactive session.
        """
        payload = pickle_launch(launch)
        needs_main = launch.agent.class_name.startswith("__main__") or b"__main__" in payload
        main = MainModule.of_this_program() if needs_main else None
        return cls(launch.guild_id, launch.agent, payload, main, surroundings)


class BootHeader(msgspec.Struct, frozen=True):
    """What must be done before the launch can be unpickled."""

    agent_name: str
    directory: str | None
    log_level: int
    orphan_grace: float
    main: MainModule | None
    limits: dict[str, Any]


@dataclass(frozen=True, slots=True)
class BootFile:
    """The content of the file."""

    first_line: bytes
    header: BootHeader
    payload: bytes
    messaging: bytes

    @classmethod
    def of(
        cls,
        packed: PackedLaunch,
        messaging: MessagingConfig,
        limits: dict[str, Any],
        orphan_grace: float,
    ) -> BootFile:
        """Put it together."""
        around = packed.surroundings
        # json, not msgspec: names of files and variables need not be UTF-8.
        first = json.dumps({"env": around.environment, "sys_path": around.sys_path})
        header = BootHeader(
            agent_name=packed.agent.name,
            directory=around.directory,
            log_level=logging.getLogger().getEffectiveLevel(),
            orphan_grace=orphan_grace,
            main=packed.main,
            limits=limits,
        )
        return cls(first.encode(), header, packed.payload, pickle.dumps(messaging))

    def write(self) -> BinaryIO:
        """Write the file, positioned at its start."""
        file: BinaryIO
        if hasattr(os, "memfd_create"):
            file = os.fdopen(os.memfd_create("rustic-boot", os.MFD_CLOEXEC), "w+b")
        else:
            file = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
        file.write(self.first_line + b"\n")
        file.write(msgspec.json.encode(self.header) + b"\n")
        file.write(self.payload)
        file.write(self.messaging)
        file.flush()
        file.seek(0)
        return file


def read_boot_header(file: BinaryIO) -> tuple[dict[str, Any], BootHeader]:
    """Read the first two lines."""
    file.seek(0)
    first: dict[str, Any] = json.loads(file.readline())
    return first, msgspec.json.decode(file.readline(), type=BootHeader)
