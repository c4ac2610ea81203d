"""Modules of the user that a file or a command names."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path

from rustic_ai.core.errors import ImportFailedError


def make_importable(*folders: Path) -> None:
    """Put folders at the front of ``sys.path``, the first one first, where they are not on it.

    They stay: agents are launched with the program's ``sys.path``, and import there, too.
    """
    for folder in reversed(folders):
        if str(folder) not in sys.path:
            sys.path.insert(0, str(folder))


def import_failure(module: str, error: BaseException) -> ImportFailedError:
    """Describe what a module of the user raised while it was imported."""
    frames = traceback.extract_tb(error.__traceback__)
    places = [frame for frame in frames if not frame.filename.startswith("<frozen ")]
    place = f"{places[-1].filename}:{places[-1].lineno}" if places else ""
    if isinstance(error, SyntaxError) and error.filename:
        place = f"{error.filename}:{error.lineno}"
    reason = f"{type(error).__name__}: {error}".rstrip(": ")
    return ImportFailedError(module=module, reason=reason, place=place)
