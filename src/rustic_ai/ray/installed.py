"""Ray itself, imported when it is needed; and this machine, as pids know it."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from rustic_ai.ray.errors import RayMissingError

NAMESPACE = "rustic-ai"
"""Where the names of our actors are."""


def import_ray() -> Any:
    """Return the module ray.

    Raises:
        RayMissingError: it is not installed.
    """
    try:
        return importlib.import_module("ray")
    except ModuleNotFoundError as e:
        raise RayMissingError from e


def machine() -> str:
    """Name this machine and its process ids: where this is the same, so are pids; or nothing."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:
        return ""
