"""How a process ended that is not our child; from the kernel, as far as it tells. Linux."""

from __future__ import annotations

import contextlib
import fcntl
import struct
from pathlib import Path

_PIDFD_GET_INFO = 0xC040FF0B
_PIDFD_INFO = struct.Struct("<Q52xi")
_PIDFD_INFO_EXIT = 1 << 3


def exit_status(pid: int, pidfd: int) -> int | None:
    """Return the wait status of a process that is not our child, where the kernel tells it.

    While it waits to be collected, from proc(5); later, from ioctl_pidfd(2), Linux 6.15 and newer.
    """
    with contextlib.suppress(OSError, IndexError):
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        if fields[0] == b"Z":
            return int(fields[49])
    buffer = bytearray(_PIDFD_INFO.size)
    _PIDFD_INFO.pack_into(buffer, 0, _PIDFD_INFO_EXIT, 0)
    with contextlib.suppress(OSError):
        fcntl.ioctl(pidfd, _PIDFD_GET_INFO, buffer)
        mask, status = _PIDFD_INFO.unpack_from(buffer)
        if mask & _PIDFD_INFO_EXIT:
            return int(status)
    return None
