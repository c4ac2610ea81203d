"""What a child process is given at its start, in an anonymous file that it inherits.

The first line is JSON that a bare interpreter can read (``sys.path``); then a line of JSON, the
`BootHeader`; then the pickled `AgentLaunch` and `MessagingConfig`. A file takes any size without
anybody waiting for a reader.
"""

from __future__ import annotations

import logging
import os
import pickle
import sys
import tempfile
from dataclasses import dataclass
from typing import BinaryIO

import msgspec

from rustic_ai.core.guild.execution.host import AgentLaunch
from rustic_ai.core.guild.execution.multiprocess.main_module import MainModule
from rustic_ai.core.guild.execution.multiprocess.pickle_path import pickle_launch
from rustic_ai.core.guild.spec import AgentSpec
from rustic_ai.core.messaging.core.messaging_config import MessagingConfig


@dataclass(frozen=True, slots=True)
class PackedLaunch:
    """An agent, packed for its process."""

    agent: AgentSpec
    payload: bytes
    main: MainModule | None

    @classmethod
    def pack(cls, launch: AgentLaunch) -> PackedLaunch:
        """Pickle it, and see whether it needs the program's ``__main__``.

        Raises:
            NotPicklableError: the launch cannot travel.
            SpecError: it needs a class of an interactive session.
        """
        payload = pickle_launch(launch)
        needs_main = launch.agent.class_name.startswith("__main__") or b"__main__" in payload
        return cls(launch.agent, payload, MainModule.of_this_program() if needs_main else None)


class BootHeader(msgspec.Struct, frozen=True):
    """What must be done before the launch can be unpickled."""

    agent_name: str
    log_level: int
    orphan_grace: float
    main: MainModule | None


def write_boot_file(
    packed: PackedLaunch, messaging: MessagingConfig, orphan_grace: float
) -> BinaryIO:
    """Write the file, positioned at its start."""
    header = BootHeader(
        agent_name=packed.agent.name,
        log_level=logging.getLogger().getEffectiveLevel(),
        orphan_grace=orphan_grace,
        main=packed.main,
    )
    file: BinaryIO
    if hasattr(os, "memfd_create"):
        file = os.fdopen(os.memfd_create("rustic-boot", os.MFD_CLOEXEC), "w+b")
    else:
        file = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
    file.write(msgspec.json.encode(sys.path) + b"\n")
    file.write(msgspec.json.encode(header) + b"\n")
    file.write(packed.payload)
    pickle.dump(messaging, file)
    file.flush()
    file.seek(0)
    return file


def read_boot_header(file: BinaryIO) -> BootHeader:
    """Read the second line; the first has been read."""
    return msgspec.json.decode(file.readline(), type=BootHeader)
