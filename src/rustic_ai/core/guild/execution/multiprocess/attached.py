"""A look at the agents of an engine from any other process, by its shared table alone."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from pathlib import Path
from typing import Any, Self

import psutil

from rustic_ai.core.errors import EngineError
from rustic_ai.core.guild.execution.multiprocess.pulse import seen_in
from rustic_ai.core.guild.execution.multiprocess.table import Record, SharedTable
from rustic_ai.core.guild.execution.stats import AgentState
from rustic_ai.core.guild.spec import AgentSpec

_GUILD, _TABLE = "rustic-guild=", "rustic-table="


class AttachedTracker:
    """Lists agents with state, load and heartbeat. Read-only; asks nobody.

    It shows the table as long as it is open, even when the engine is gone: `is_agent_alive` looks
    at the processes, too.
    """

    def __init__(self, table: SharedTable) -> None:
        self._table = table

    @classmethod
    def find(cls, guild_id: str) -> Self:
        """Attach to the engine of a guild; the newest, where several programs run it.

        The processes of an engine carry guild and table in their arguments; the table is opened
        through ``/proc`` of one of them, which the kernel allows the same user only.

        Raises:
            EngineError: no such guild runs here, or this is not Linux.
        """
        if sys.platform != "linux":
            raise EngineError(summary="attaching to a running guild needs Linux (/proc)")
        tables = [table for table in map(_open, _holders(guild_id)) if table is not None]
        if not tables:
            raise EngineError(
                summary=f"no guild {guild_id!r} of this user runs on this machine",
                hint="it is known by the guild_id that its engine was made with",
            )
        newest = max(tables, key=lambda table: table.epoch)
        for table in tables:
            if table is not newest:
                table.close()
        return cls(newest)

    @property
    def engine_pid(self) -> int:
        """The pid of the program whose engine it is."""
        return int(self._table.engine_pid)

    def get_agents_in_guild(self, guild_id: str) -> dict[str, AgentSpec]:
        """Return agent id -> spec; what JSON does not know is shown by its description."""
        return {spec.id: spec for guild, spec, _, _ in self._all() if guild == guild_id}

    def get_agent_spec(self, guild_id: str, agent_id: str) -> AgentSpec | None:
        """Return an agent's spec."""
        return self.get_agents_in_guild(guild_id).get(agent_id)

    def is_agent_alive(self, guild_id: str, agent_id: str) -> bool:
        """Say whether the agent is ready and its process lives."""
        return bool(self.get_process_info(guild_id, agent_id).get("is_alive"))

    def get_process_info(self, guild_id: str, agent_id: str) -> dict[str, Any]:
        """Return what the table says of an agent; empty for an unknown one."""
        for guild, spec, record, slot in self._all():
            if (guild, spec.id) == (guild_id, agent_id):
                return self._info(spec, record, slot)
        return {}

    def get_stats(self) -> dict[str, Any]:
        """Return how many agents there are, and in which state."""
        agents = list(self._all())
        states: dict[str, int] = {}
        for _, _, record, _ in agents:
            name = str(AgentState.of_number(record.state))
            states[name] = states.get(name, 0) + 1
        return {
            "total_agents": len(agents),
            "alive_agents": sum(_is_alive(record) for _, _, record, _ in agents),
            "total_guilds": len({guild for guild, _, _, _ in agents}),
            "states": states,
            "restarts": sum(record.restarts for _, _, record, _ in agents),
        }

    def close(self) -> None:
        """Let go of the table."""
        self._table.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _all(self) -> list[tuple[str, AgentSpec, Record, int]]:
        found = []
        for slot in range(self._table.used):
            record = self._table.read(slot)
            if record is None or not record.text[1]:
                continue
            text = self._table.text(record.text)
            if text is not None:  # else it was taken off the list at this very moment
                facts = json.loads(text)
                spec = AgentSpec.model_validate(facts["spec"])
                found.append((facts["guild_id"], spec, record, slot))
        return found

    def _info(self, spec: AgentSpec, record: Record, slot: int) -> dict[str, Any]:
        cells = self._table.cells(slot)
        seen = seen_in(cells)
        cells.release()
        return {
            "pid": record.pid or None,
            "is_alive": _is_alive(record),
            "name": spec.name,
            "status": str(AgentState.of_number(record.state)),
            "exitcode": record.exitcode,
            "generation": record.generation,
            "restarts": record.restarts,
            **seen,
        }


def _is_alive(record: Record) -> bool:
    running = AgentState.of_number(record.state) is AgentState.RUNNING
    return running and psutil.pid_exists(record.pid)


def _holders(guild_id: str) -> list[Path]:
    """Return where descriptors of tables of that guild are."""
    wanted = f"{_GUILD}{guild_id}".encode()
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            with contextlib.suppress(OSError):  # ended, or another user's
                arguments = (process / "cmdline").read_bytes().split(b"\0")
                if wanted in arguments:
                    marks = [a for a in arguments if a.startswith(_TABLE.encode())]
                    found += [process / "fd" / m.decode().partition("=")[2] for m in marks]
    return found


def _open(path: Path) -> SharedTable | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # its process has just ended
        return None
    try:
        return SharedTable(fd, writable=False)
    except EngineError:
        os.close(fd)
        return None
