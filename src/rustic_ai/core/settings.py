"""Settings that come from the environment, read when asked: tests and launches see changes."""

from __future__ import annotations

import os
import stat
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
        GuildError: the directory cannot be made, or is not this user's alone to write to.
    """
    path = _chosen_dir()
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        info = path.stat()
    except OSError as e:
        raise GuildError(
            summary=f"the runtime directory {path} cannot be made: {e.strerror}",
            hint=f"set {RUNTIME_DIR_VARIABLE} to a directory that you can write to",
        ) from e
    if not hasattr(os, "getuid"):
        return path
    if info.st_uid != os.getuid():
        raise GuildError(
            summary=f"the runtime directory {path} belongs to another user (uid {info.st_uid})",
            hint=f"set {RUNTIME_DIR_VARIABLE} to a directory of your own",
        )
    if info.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        mode = stat.S_IMODE(info.st_mode)
        raise GuildError(
            summary=f"others can write to the runtime directory {path} (mode {mode:04o})",
            hint=f"chmod 700 {path}, or set {RUNTIME_DIR_VARIABLE} to a directory of your own",
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
