"""A look at the agents of an engine from any other process, by its shared table alone."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from functools import cached_property
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
        self._known: dict[int, _Known] = {}

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
        return {k.agent_id: k.spec for k, _, _ in self._all() if k.guild_id == guild_id}

    def get_agent_spec(self, guild_id: str, agent_id: str) -> AgentSpec | None:
        """Return an agent's spec."""
        found = self._find(guild_id, agent_id)
        return found[0].spec if found is not None else None

    def is_agent_alive(self, guild_id: str, agent_id: str) -> bool:
        """Say whether the agent is ready and its process lives."""
        found = self._find(guild_id, agent_id)
        return found is not None and _is_alive(found[1])

    def get_process_info(self, guild_id: str, agent_id: str) -> dict[str, Any]:
        """Return what the table says of an agent; empty for an unknown one."""
        found = self._find(guild_id, agent_id)
        return self._info(*found) if found is not None else {}

    def get_stats(self) -> dict[str, Any]:
        """Return how many agents there are, and in which state."""
        agents = list(self._all())
        states: dict[str, int] = {}
        for _, record, _ in agents:
            name = str(AgentState.of_number(record.state))
            states[name] = states.get(name, 0) + 1
        return {
            "total_agents": len(agents),
            "alive_agents": sum(_is_alive(record) for _, record, _ in agents),
            "total_guilds": len({known.guild_id for known, _, _ in agents}),
            "states": states,
            "restarts": sum(record.restarts for _, record, _ in agents),
        }

    def close(self) -> None:
        """Let go of the table."""
        self._table.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _find(self, guild_id: str, agent_id: str) -> tuple[_Known, Record, int] | None:
        for known, record, slot in self._all():
            if known.agent_id == agent_id and known.guild_id == guild_id:
                return known, record, slot
        return None

    def _all(self) -> Iterator[tuple[_Known, Record, int]]:
        for slot in range(self._table.used):
            record = self._table.read(slot)
            if record is None or not record.text[1]:
                continue
            known = self._known.get(slot)
            if known is None or known.place != record.text:  # else its text has not changed
                text = self._table.text(record.text)
                if text is None:  # it was taken off the list at this very moment
                    continue
                known = self._known[slot] = _Known(record.text, text)
            yield known, record, slot

    def _info(self, known: _Known, record: Record, slot: int) -> dict[str, Any]:
        cells = self._table.cells(slot)
        seen = seen_in(cells)
        cells.release()
        return {
            "pid": record.pid or None,
            "is_alive": _is_alive(record),
            "name": known.name,
            "status": str(AgentState.of_number(record.state)),
            "exitcode": record.exitcode,
            "generation": record.generation,
            "restarts": record.restarts,
            **seen,
        }


class _Known:
    """Who an agent is, read once from its text."""

    def __init__(self, place: tuple[int, int, int], text: bytes) -> None:
        facts = json.loads(text)
        self.place = place
        self.guild_id: str = facts["guild_id"]
        self.agent_id: str = facts["spec"]["id"]
        self.name: str = facts["spec"]["name"]
        self._facts = facts["spec"]

    @cached_property
    def spec(self) -> AgentSpec:
        """Its description."""
        return AgentSpec.model_validate(self._facts)


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
