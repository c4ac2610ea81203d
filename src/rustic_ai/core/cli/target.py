"""What the command is told to run, as a spec."""

from __future__ import annotations

import importlib
import traceback
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from rustic_ai.core.errors import GuildError, SpecError
from rustic_ai.core.guild.builders import GuildBuilder
from rustic_ai.core.guild.spec import GuildSpec
from rustic_ai.core.guild.spec_file import read_guild_file
from rustic_ai.core.guild.spec_file.imports import import_failure, make_importable

_FILES = {".yaml", ".yml", ".json"}


def load_target(target: str) -> GuildSpec:
    """Return the guild of a file, or of ``module:name``.

    The name stands for a `GuildSpec`, a `GuildBuilder`, or a function that returns one of them.

    Raises:
        SpecError: the file, or what the name leads to, describes no guild.
        ImportFailedError: the module cannot be imported.
    """
    module_name, colon, name = target.partition(":")
    if not colon or Path(target).suffix in _FILES or Path(target).exists():
        return read_guild_file(Path(target))
    make_importable(Path.cwd())
    try:
        found: Any = importlib.import_module(module_name)
    except (Exception, SystemExit) as e:
        raise import_failure(module_name, e) from e
    for part in name.split("."):
        if not hasattr(found, part):
            raise SpecError(
                summary=f"module {module_name!r} has no {name!r}",
                hint="give the name of a GuildSpec, a GuildBuilder, or a function that returns one",
            )
        found = getattr(found, part)
    if callable(found) and not isinstance(found, type):
        found = _call(found, target)
    if isinstance(found, GuildBuilder):
        found = found.build_spec()
    if not isinstance(found, GuildSpec):
        raise SpecError(
            summary=f"{target} is a {type(found).__name__}",
            hint="give the name of a GuildSpec, a GuildBuilder, or a function that returns one",
        )
    return found


def _call(function: Callable[[], Any], target: str) -> Any:
    try:
        return function()
    except GuildError:
        raise
    except (Exception, SystemExit) as e:
        text = "".join(traceback.format_exception(e.with_traceback(_below(e.__traceback__))))
        raise SpecError(summary=f"{target} failed:\n{text.rstrip()}") from e


def _below(trace: TracebackType | None) -> TracebackType | None:
    """Leave our own frame, the first one, out."""
    return trace.tb_next if trace is not None else None
