"""From how a process ended to what people are told."""

from __future__ import annotations

import os
import signal

from rustic_ai.core.guild.execution.multiprocess.channel import Failed
from rustic_ai.core.guild.execution.multiprocess.launchers import Ending

_LARGE_SHARE = 0.25
"""Share of the machine's memory from which on the kernel's memory killer is suspected."""


def describe_ending(ending: Ending, failure: Failed | None, killed_because: str) -> str:
    """Say in a few words how an agent's process ended.

    Args:
        ending: what the kernel says.
        failure: what the agent itself said, where it came to that.
        killed_because: why the engine killed it, where it did.
    """
    if killed_because:
        return f"was killed: {killed_because}"
    if failure is not None:
        return f"failed: {failure.error_type}: {failure.text}"
    if ending.exitcode >= 0:
        return f"ended with exit code {ending.exitcode}"
    name = signal_name(ending.exitcode)
    if name == "SIGKILL":
        peak = f"{ending.peak_memory_mb:.0f} MB peak memory"
        large = ending.peak_memory_mb > machine_memory_mb() * _LARGE_SHARE
        likely = ", probably by the kernel for lack of memory" if large else ""
        return f"was killed from outside by SIGKILL at {peak}{likely}"
    return f"was ended by {name}"


def machine_memory_mb() -> float:
    """Return the physical memory of this machine, in MB."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e6


def signal_name(exitcode: int) -> str:
    """Return the name of the signal that a negative exit code stands for."""
    try:
        return signal.Signals(-exitcode).name
    except ValueError:
        return f"signal {-exitcode}"
