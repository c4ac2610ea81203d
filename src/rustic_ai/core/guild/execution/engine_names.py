"""The names that specs have for engines."""

from __future__ import annotations

import difflib

from rustic_ai.core.class_names import find_class
from rustic_ai.core.errors import ClassNotFoundError
from rustic_ai.core.guild.execution.engine import ExecutionEngine

_SHORT_NAMES = {
    "multiprocess": "rustic_ai.core.guild.execution.multiprocess:MultiProcessExecutionEngine",
    "ray": "rustic_ai.ray.engine:RayExecutionEngine",
    "sync": "rustic_ai.core.guild.execution.sync:SyncExecutionEngine",
}


def find_engine(name: str) -> type[ExecutionEngine]:
    """Return the engine class of a short name, or of a class name.

    Raises:
        ClassNotFoundError: there is none.
    """
    try:
        return find_class(_SHORT_NAMES.get(name, name), ExecutionEngine)
    except ClassNotFoundError as e:
        near = difflib.get_close_matches(name, _SHORT_NAMES, n=1)
        if near:
            e.hint = f"did you mean {near[0]!r}?"
        raise
