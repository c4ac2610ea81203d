"""Settings that come from the environment, read when asked: tests and launches see changes."""

from __future__ import annotations

import os
from pathlib import Path

from rustic_ai.core.errors import GuildError

RUNTIME_DIR_VARIABLE = "RUSTIC_RUNTIME_DIR"


def runtime_dir() -> Path:
    """Return this user's private directory for lock files and sockets, made when missing.

    ``RUSTIC_RUNTIME_DIR`` overrides the platform's own place (on Linux ``$XDG_RUNTIME_DIR``).

    Raises:
        GuildError: the directory cannot be made, or belongs to another user.
    """
    chosen = os.environ.get(RUNTIME_DIR_VARIABLE)
    if chosen:
        path = Path(chosen)
    else:
        from platformdirs import user_runtime_path

        path = user_runtime_path("rustic-ai", appauthor=False)
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
