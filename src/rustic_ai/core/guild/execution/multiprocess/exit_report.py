"""From how a process ended to what people are told."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import Any

from rustic_ai.core.guild.execution.multiprocess.channel import Failed
from rustic_ai.core.guild.execution.multiprocess.launchers import Ending
from rustic_ai.core.guild.execution.stats import signal_name

_RECENT = 1.0
_recent: list[Any] = [-_RECENT - 1, None]
"""When `oom_kills` was last asked, and its answer."""
_LARGE_SHARE = 0.25
"""Share of the machine's memory from which on the kernel's memory killer is suspected."""


def describe_ending(
    ending: Ending, failure: Failed | None, killed_because: str, kills_before: int | None = None
) -> str:
    """Say in a few words how an agent's process ended.

    Args:
        ending: what the kernel says.
        failure: what the agent itself said, where it came to that.
        killed_because: why the engine killed it, where it did.
        kills_before: `oom_kills` at its start.
    """
    if killed_because:
        return f"was killed: {killed_because}"
    if failure is not None:
        return f"failed: {failure.error_type}: {failure.text}"
    if ending.exitcode is None:
        return ending.trouble
    if ending.exitcode >= 0:
        return f"ended with exit code {ending.exitcode}"
    return _describe_signal(signal_name(ending.exitcode), ending, kills_before)


def _describe_signal(name: str, ending: Ending, kills_before: int | None) -> str:
    if name == "SIGKILL":
        return "was killed from outside by SIGKILL" + _suspicion(ending, kills_before)
    if name == "SIGXCPU":
        return "was ended by SIGXCPU: it used up its limit of CPU time (limits.cpu_seconds)"
    return f"was ended by {name}"


def _suspicion(ending: Ending, kills_before: int | None) -> str:
    peak = ending.peak_memory_mb
    text = f" at {peak:.0f} MB peak memory" if peak is not None else ""
    kills_now = oom_kills()
    if kills_before is not None and kills_now is not None and kills_now > kills_before:
        return f"{text}, probably by the kernel's memory killer, which was at work meanwhile"
    if peak is not None and peak > machine_memory_mb() * _LARGE_SHARE:
        return f"{text}, probably by the kernel for lack of memory"
    return text


def oom_kills() -> int | None:
    """Return how often the kernel's memory killer struck since boot; None where not told."""
    try:
        counters = Path("/proc/vmstat").read_text()
    except OSError:
        return None
    found = re.search(r"^oom_kill (\d+)$", counters, re.MULTILINE)
    return int(found[1]) if found else None


def recent_oom_kills() -> int | None:
    """Return what `oom_kills` said within the last second; for many launches at once."""
    now = time.monotonic()
    if now - _recent[0] > _RECENT:
        _recent[:] = [now, oom_kills()]
    found: int | None = _recent[1]
    return found


def machine_memory_mb() -> float:
    """Return the physical memory of this machine, in MB."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e6
