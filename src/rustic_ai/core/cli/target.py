"""What the command is told to run, as a spec."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from rustic_ai.core.errors import SpecError
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
    except Exception as e:
        raise import_failure(module_name, e) from e
    for part in name.split("."):
        if not hasattr(found, part):
            raise SpecError(
                summary=f"module {module_name!r} has no {name!r}",
                hint="give the name of a GuildSpec, a GuildBuilder, or a function that returns one",
            )
        found = getattr(found, part)
    if callable(found) and not isinstance(found, type):
        found = found()
    if isinstance(found, GuildBuilder):
        found = found.build_spec()
    if not isinstance(found, GuildSpec):
        raise SpecError(
            summary=f"{target} is a {type(found).__name__}",
            hint="give the name of a GuildSpec, a GuildBuilder, or a function that returns one",
        )
    return found
