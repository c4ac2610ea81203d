"""Machine numbers: a small number that no other living process of this host holds.

One file per user holds eight bytes per number: the millisecond up to which ids of that number may
have been made. A process owns a number while it holds the lock on those bytes; the kernel gives
the lock back however the process ends. A successor never takes a number before its reserved time
has passed, so ids stay unique through crashes, restarts and clocks that step back.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass, field

from rustic_ai.core.errors import GuildError
from rustic_ai.core.settings import runtime_dir

SHORT_NUMBERS = 1 << 10
LONG_NUMBERS = 1 << 16
RESERVE_MS = 1000
_CELL = struct.Struct("<q")
_FILE = "machine-numbers"


@dataclass(slots=True)
class MachineNumber:
    """A number leased for the life of this process."""

    number: int
    reserved_until: int
    _fd: int = field(repr=False)

    @classmethod
    def lease(cls, now_ms: int) -> MachineNumber:
        """Take a free number; `now_ms` is in the clock of the ids.

        Raises:
            GuildError: the lock file cannot be used, or all 66,560 numbers are held.
        """
        path = runtime_dir() / _FILE
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        start = os.getpid() % SHORT_NUMBERS
        order = [*range(start, SHORT_NUMBERS), *range(start)]
        for numbers in (order, range(SHORT_NUMBERS, SHORT_NUMBERS + LONG_NUMBERS)):
            for number in numbers:
                if cls._reserved(fd, number) < now_ms and _try_lock(fd, number):
                    # Read again under the lock: the last holder may have just gone.
                    if cls._reserved(fd, number) < now_ms:
                        lease = cls(number, 0, fd)
                        lease.reserved_until = lease.reserve(now_ms)
                        return lease
                    _unlock(fd, number)
        os.close(fd)
        raise GuildError(
            summary=f"all {SHORT_NUMBERS + LONG_NUMBERS} machine numbers of {path} are held",
            hint="set RUSTIC_RUNTIME_DIR to a directory of its own for some of the programs",
        )

    @staticmethod
    def _reserved(fd: int, number: int) -> int:
        cell = os.pread(fd, _CELL.size, number * _CELL.size)
        return int(_CELL.unpack(cell)[0]) if len(cell) == _CELL.size else -1

    def reserve(self, ms: int) -> int:
        """Record that ids up to a while after `ms` may be made; return that time."""
        until = ms + RESERVE_MS
        os.pwrite(self._fd, _CELL.pack(until), self.number * _CELL.size)
        return until


if os.name == "posix":
    import fcntl

    def _try_lock(fd: int, number: int) -> bool:
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, _CELL.size, number * _CELL.size)
        except (BlockingIOError, PermissionError):  # POSIX allows EAGAIN and EACCES
            return False
        return True

    def _unlock(fd: int, number: int) -> None:
        fcntl.lockf(fd, fcntl.LOCK_UN, _CELL.size, number * _CELL.size)
else:  # pragma: no cover
    import msvcrt

    def _try_lock(fd: int, number: int) -> bool:
        # Byte locks are mandatory on Windows: lock far behind the cells, so they stay readable.
        os.lseek(fd, (1 << 30) + number, os.SEEK_SET)
        try:
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        except OSError:
            return False
        return True

    def _unlock(fd: int, number: int) -> None:
        os.lseek(fd, (1 << 30) + number, os.SEEK_SET)
        msvcrt.locking(fd, msvcrt.LK_UNLCK, 1)  # type: ignore[attr-defined]
