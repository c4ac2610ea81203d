"""Sortable 64-bit message ids, unique across the processes of a host and their restarts.

Layout, high to low::

    3 bits   priority (0 most urgent)
    41 bits  milliseconds since 2023-01-01 UTC (to the year 2092)
    20 bits  machine number and sequence

The shape is Snowflake's (Twitter, 2010) with a priority in front. Two things differ. The machine
number is not configured but leased from the operating system (`machine_number`). And its width
follows demand: the first 1,024 processes get ``0 + 10 bits`` and 512 ids a millisecond, the next
65,536 ``1 + 16 bits`` and 8, so that numbers do not run out. A burst beyond that borrows from
the milliseconds ahead instead of waiting.
"""

from __future__ import annotations

import itertools
import os
import threading
import time
from dataclasses import dataclass
from typing import Final

from rustic_ai.core.messaging.core.machine_number import SHORT_NUMBERS, MachineNumber
from rustic_ai.core.messaging.core.priority import Priority

EPOCH_MS: Final = 1_672_531_200_000  # 2023-01-01T00:00:00Z
_LOW_BITS: Final = 20
_TIME_BITS: Final = 41
_PRIORITY_AT: Final = _TIME_BITS + _LOW_BITS
_LONG_FLAG: Final = 1 << (_LOW_BITS - 1)
_SHORT_SEQUENCE_BITS: Final = 9
_LONG_SEQUENCE_BITS: Final = 3
_MS: Final = 1_000_000
"""Nanoseconds in a millisecond."""
_now: Final = time.time_ns


@dataclass(frozen=True, order=True, slots=True)
class GemstoneID:
    """A message id; ids order by priority, then by time."""

    value: int

    @classmethod
    def from_int(cls, value: int) -> GemstoneID:
        """Wrap the 64-bit number of an id.

        Raises:
            ValueError: `value` does not fit 64 unsigned bits.
        """
        if not 0 <= value < 1 << 64:
            raise ValueError(f"a message id has 64 bits, unsigned; {value} does not fit")
        return cls(value)

    def to_int(self) -> int:
        """Return the id as its 64-bit number."""
        return self.value

    @property
    def priority(self) -> Priority:
        """Urgency, from the three highest bits."""
        return Priority(self.value >> _PRIORITY_AT)

    @property
    def timestamp(self) -> int:
        """When the id was made, in milliseconds since 1970-01-01 UTC."""
        return id_time_ms(self.value)

    @property
    def machine_id(self) -> int:
        """Machine number of the process that made the id."""
        return self._split()[0]

    @property
    def sequence(self) -> int:
        """Position among the ids of that process in that millisecond."""
        return self._split()[1]

    def _split(self) -> tuple[int, int]:
        low = self.value & ((1 << _LOW_BITS) - 1)
        if low & _LONG_FLAG:
            number, sequence = divmod(low ^ _LONG_FLAG, 1 << _LONG_SEQUENCE_BITS)
            return number + SHORT_NUMBERS, sequence
        return divmod(low, 1 << _SHORT_SEQUENCE_BITS)

    def __int__(self) -> int:
        return self.value

    def __str__(self) -> str:
        return str(self.value)


def id_priority(value: int) -> int:
    """Return the priority of an id, 0 most urgent."""
    return value >> _PRIORITY_AT


def id_time_ms(value: int) -> int:
    """Return when an id was made, in milliseconds since 1970-01-01 UTC."""
    return ((value >> _LOW_BITS) & ((1 << _TIME_BITS) - 1)) + EPOCH_MS


class _Ticker:
    """Hands out the lower 61 bits of the ids of one process, never one twice, never backwards.

    A millisecond's ids come from one counter, which needs no lock. A thread that still draws from
    the counter of the millisecond before gets an id that nobody else has, too.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin anew, under a machine number that is leased with the next id."""
        self._lock = threading.Lock()
        self._number: MachineNumber | None = None
        self._ms = self._reserved = 0
        self._sequences = self._machine_part = 0
        self._tick = itertools.count(), 0, 0
        """The counter of the millisecond, its first id too many, and the nanosecond of its end."""

    def next(self, priority: int) -> int:
        """Return the next id as a plain number."""
        counter, limit, until = self._tick
        low = next(counter)
        if low >= limit or _now() >= until:
            low = self._next_tick()
        return priority << _PRIORITY_AT | low

    def _next_tick(self) -> int:
        """Go on to the next millisecond; returns an id of it."""
        with self._lock:
            counter, limit, until = self._tick
            now = _now()
            low = next(counter)
            if low < limit and now < until:  # another thread was here first
                return low
            # One whose ids are used up borrows from the next.
            ms = max(self._ms + 1, now // _MS - EPOCH_MS)
            if ms >= self._reserved:
                ms = self._reserve(ms)
            self._ms = ms
            first = ms << _LOW_BITS | self._machine_part
            counter = itertools.count(first)
            low = next(counter)
            self._tick = counter, first + self._sequences, (ms + 1 + EPOCH_MS) * _MS
        return low

    def _reserve(self, ms: int) -> int:
        """Make sure that ids of a millisecond may be used, also after a restart; returns which."""
        if self._number is None:
            lease = self._number = MachineNumber.lease(ms)
            if lease.number < SHORT_NUMBERS:
                self._sequences = 1 << _SHORT_SEQUENCE_BITS
                self._machine_part = lease.number << _SHORT_SEQUENCE_BITS
            else:
                self._sequences = 1 << _LONG_SEQUENCE_BITS
                number = lease.number - SHORT_NUMBERS
                self._machine_part = _LONG_FLAG | number << _LONG_SEQUENCE_BITS
            self._reserved = lease.reserved_until
        else:
            self._reserved = self._number.reserve(ms)
        return ms


_ticker: Final = _Ticker()


if hasattr(os, "register_at_fork"):  # a forked process is another machine number
    os.register_at_fork(after_in_child=_ticker.reset)


def next_id(priority: int) -> int:
    """Return the next id of this process as a plain number: what `GemstoneGenerator` wraps."""
    return _ticker.next(priority)


class GemstoneGenerator:
    """Makes ids; all generators of a process share one sequence, so their ids never collide.

    Args:
        machine_id: accepted because callers in this field pass one, and not used: two programs
            that chose the same would make equal ids. The real number is leased from the host.
    """

    def __init__(self, machine_id: int = 0) -> None:
        self.machine_id = machine_id

    def get_id(self, priority: Priority = Priority.NORMAL) -> GemstoneID:
        """Make the next id. Safe from any thread, never blocks.

        Raises:
            ValueError: `priority` is not one of `Priority`.
        """
        return GemstoneID(next_id(Priority(priority)))
