"""The processes of a Ray cluster that this program has started."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import psutil

from rustic_ai.ray.installed import import_ray

logger = logging.getLogger(__name__)

_END_DEADLINE = 2.0
"""Seconds in which they must end by themselves."""


def own_processes() -> list[psutil.Process]:
    """Return those that run, with all that they have started."""
    package = f"{Path(import_ray().__file__).parent}{os.sep}"
    found: list[psutil.Process] = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):
            # The program itself, or the script behind the interpreter and its options.
            if any(word.startswith(package) for word in child.cmdline()[:3]):
                found += [child, *child.children(recursive=True)]
    return found


def end_processes(processes: Sequence[psutil.Process]) -> None:
    """Wait for their end, which Ray has been told to bring about; kill what does not.

    Where the head was lost, some wait for it for a minute.
    """
    _, alive = psutil.wait_procs(processes, timeout=_END_DEADLINE)
    for process in alive:
        logger.debug("Ray has left %s behind", process)
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive, timeout=_END_DEADLINE)
