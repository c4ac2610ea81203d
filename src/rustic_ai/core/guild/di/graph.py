"""Finds missing and circular dependencies before an agent is started."""

from __future__ import annotations

from collections.abc import Mapping

from rustic_ai.core.class_names import load_class
from rustic_ai.core.errors import DependencyCycleError, MissingDependencyError
from rustic_ai.core.guild.di.resolver import DependencyResolver
from rustic_ai.core.guild.spec import DependencySpec


def check_dependencies(wanted: Mapping[str, str], specs: Mapping[str, DependencySpec]) -> None:
    """Check that every wanted key, and all that it needs in turn, is defined and free of circles.

    Args:
        wanted: key -> who wants it.
        specs: key -> definition.

    Raises:
        MissingDependencyError: a key is not defined; says who wants it.
        DependencyCycleError: keys need each other; shows the circle.
        ClassNotFoundError: a resolver class does not exist.
    """
    settled: set[str] = set()

    def visit(key: str, wanted_by: str, path: list[str]) -> None:
        if key in path:
            raise DependencyCycleError(path=[*path[path.index(key) :], key])
        if key in settled:
            return
        if key not in specs:
            raise MissingDependencyError(key=key, wanted_by=wanted_by, available=sorted(specs))
        for needed in _needs(specs[key]):
            visit(needed, f"dependency {key!r}", [*path, key])
        settled.add(key)

    for key, wanted_by in wanted.items():
        visit(key, wanted_by, [])
    for key in specs:
        visit(key, "the guild", [])


def _needs(spec: DependencySpec) -> tuple[str, ...]:
    if spec.class_name is None:
        return ()
    return load_class(spec.class_name, DependencyResolver).depends_on
