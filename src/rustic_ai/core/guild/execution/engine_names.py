"""The names that specs have for engines, and for their settings."""

from __future__ import annotations

import difflib
import inspect
from typing import Any

from rustic_ai.core.class_names import find_class
from rustic_ai.core.errors import ClassNotFoundError
from rustic_ai.core.guild.execution.engine import ExecutionEngine
from rustic_ai.core.guild.spec import GuildProperties

_SHORT_NAMES = {
    "multiprocess": "rustic_ai.core.guild.execution.multiprocess:MultiProcessExecutionEngine",
    "ray": "rustic_ai.ray.engine:RayExecutionEngine",
    "sync": "rustic_ai.core.guild.execution.sync:SyncExecutionEngine",
}

_SETTINGS = (
    "max_processes",
    "start_method",
    "preload",
    "restart_policy",
    "strategy",
    "limits",
    "heartbeat_timeout",
    "handler_timeout",
)
"""Properties of a guild that are arguments of those engines which know them."""


def settings_for(engine: type[ExecutionEngine], properties: GuildProperties) -> dict[str, Any]:
    """Return the arguments of an engine class that a guild's properties give."""
    known = inspect.signature(engine).parameters
    return {name: getattr(properties, name) for name in _SETTINGS if name in known}


def find_engine(name: str) -> type[ExecutionEngine]:
    """Return the engine class of a short name, or of a class name.

    Raises:
        ClassNotFoundError: there is none.
    """
    try:
        return find_class(_SHORT_NAMES.get(name, name), ExecutionEngine)
    except ClassNotFoundError:
        near = difflib.get_close_matches(name.lower(), _SHORT_NAMES, n=1)
        if not (near or (name.isidentifier() and name.islower())):
            raise  # it is the name of a class: where that was looked for is of use
        known = ", ".join(map(repr, _SHORT_NAMES))
        raise ClassNotFoundError(
            name=name,
            summary=f"engine {name!r} was not found",
            hint=f"did you mean {near[0]!r}?"
            if near
            else f"there are {known}; another one is named by its class: 'package.module.Class'",
        ) from None
