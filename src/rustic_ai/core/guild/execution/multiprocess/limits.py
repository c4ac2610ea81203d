"""Resource limits, as an agent's process puts them on itself before anything of the user's runs."""

from __future__ import annotations

import os
import sys

from rustic_ai.core.errors import GuildError
from rustic_ai.core.guild.supervision import ResourceLimits


def apply_limits(limits: ResourceLimits) -> None:
    """Put the limits on this process.

    Raises:
        GuildError: the system refuses one; names it.
    """
    import resource

    for field, which in (
        ("address_space", resource.RLIMIT_AS),
        ("cpu_seconds", resource.RLIMIT_CPU),
        ("open_files", resource.RLIMIT_NOFILE),
    ):
        value = getattr(limits, field)
        if value is not None:
            _, hard = resource.getrlimit(which)
            try:
                resource.setrlimit(which, (value, hard))
            except (ValueError, OSError) as e:
                raise _refused(field, value, f"the system's own limit is {hard}") from e
    if limits.nice is not None:
        try:
            os.setpriority(os.PRIO_PROCESS, 0, limits.nice)
        except OSError as e:
            raise _refused("nice", limits.nice, str(e)) from e
    if limits.cpu_affinity is not None:
        _set_affinity(limits.cpu_affinity)
    if sys.platform == "linux":
        _volunteer(limits.oom_score_adj)


def _set_affinity(cpus: frozenset[int]) -> None:
    if not hasattr(os, "sched_setaffinity"):
        raise _refused("cpu_affinity", sorted(cpus), "this system has no such thing")
    try:
        os.sched_setaffinity(0, cpus)
    except OSError as e:
        there = sorted(os.sched_getaffinity(0))
        raise _refused("cpu_affinity", sorted(cpus), f"there are CPUs {there}") from e


def _volunteer(adjustment: int) -> None:
    """Have the kernel's memory killer take agents before the program; needs no privilege."""
    try:
        file = os.open("/proc/self/oom_score_adj", os.O_RDWR | os.O_CLOEXEC)
        try:
            if adjustment > int(os.read(file, 16)):
                os.write(file, str(adjustment).encode())
        finally:
            os.close(file)
    except OSError as e:
        raise _refused("oom_score_adj", adjustment, str(e)) from e


def _refused(field: str, value: object, why: str) -> GuildError:
    return GuildError(
        summary=f"limits.{field} = {value} cannot be set: {why}",
        hint="change it in the agent's limits",
    )
