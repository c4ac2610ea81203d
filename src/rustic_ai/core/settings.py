"""Settings that come from the environment, read when asked: tests and launches see changes."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from rustic_ai.core.errors import GuildError

RUNTIME_DIR_VARIABLE = "RUSTIC_RUNTIME_DIR"


def runtime_dir() -> Path:
    """Return this user's private directory for lock files and sockets, made when missing.

    ``RUSTIC_RUNTIME_DIR`` overrides the platform's own place. On Linux that is
    ``$XDG_RUNTIME_DIR``; where a system has none, a folder of this user in that of temporary files.

    Raises:
        GuildError: the directory cannot be made, or belongs to another user.
    """
    path = _chosen_dir()
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        owner = path.stat().st_uid
    except OSError as e:
        raise GuildError(
            summary=f"the runtime directory {path} cannot be made: {e.strerror}",
            hint=f"set {RUNTIME_DIR_VARIABLE} to a directory that you can write to",
        ) from e
    if hasattr(os, "getuid") and owner != os.getuid():
        raise GuildError(
            summary=f"the runtime directory {path} belongs to another user (uid {owner})",
            hint=f"set {RUNTIME_DIR_VARIABLE} to a directory of your own",
        )
    return path


def _chosen_dir() -> Path:
    chosen = os.environ.get(RUNTIME_DIR_VARIABLE)
    if chosen:
        return Path(chosen)
    if sys.platform == "linux" and not os.environ.get("XDG_RUNTIME_DIR"):
        return Path(tempfile.gettempdir()) / f"rustic-ai-{os.getuid()}"
    from platformdirs import user_runtime_path

    return user_runtime_path("rustic-ai", appauthor=False)
