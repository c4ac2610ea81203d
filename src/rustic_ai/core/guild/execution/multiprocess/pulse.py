"""How an agent's process is: heartbeat, what it works on and since when, counted in its cells."""

from __future__ import annotations

import time
from typing import Any, Final

from rustic_ai.core.guild.execution.multiprocess.table import (
    BEAT,
    BUSY_SINCE,
    ERRORS,
    HANDLED,
    MESSAGE,
    SharedTable,
)


class TablePulse:
    """Writes the cells of one slot; each store is a single aligned word, so there is no lock."""

    def __init__(self, table: SharedTable, slot: int) -> None:
        self._table: Final = table  # stays open: others find it in this process, too
        self._cells: Final = table.cells(slot)
        self._handled = 0

    def beat(self) -> None:
        """Say that Python code still runs here."""
        self._cells[BEAT] = time.monotonic_ns()

    def begin(self, message_id: int) -> None:
        """Say that a message is being handled."""
        self._cells[MESSAGE] = message_id
        self._cells[BUSY_SINCE] = time.monotonic_ns()

    def end(self, errors: int) -> None:
        """Say that it has been, by handlers of which so many failed."""
        cells = self._cells
        cells[BUSY_SINCE] = 0
        self._handled += 1
        cells[HANDLED] = self._handled
        if errors:
            cells[ERRORS] += errors

    @property
    def handled(self) -> int:
        """How many messages have been handled."""
        return self._handled


def message_in_hand(cells: memoryview) -> int | None:
    """Return the id of the message that an agent works on, or worked on when it ended."""
    return cells[MESSAGE] or None if cells[BUSY_SINCE] else None


def seen_in(cells: memoryview) -> dict[str, Any]:
    """Return what the cells of an agent say, as fields of `ProcessInfo`."""
    now, beat, busy = time.monotonic_ns(), cells[BEAT], cells[BUSY_SINCE]
    return {
        "heartbeat_age": max(0, now - beat) / 1e9 if beat else None,
        "busy_for": max(0, now - busy) / 1e9 if busy else None,
        "message_id": message_in_hand(cells),
        "handled": cells[HANDLED],
        "errors": cells[ERRORS],
    }
