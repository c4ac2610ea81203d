"""Finds out, before a process is started, what in a value cannot travel to it."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from typing import Any

from rustic_ai.core.errors import NotPicklableError
from rustic_ai.core.guild.execution.host import AgentLaunch

_MAX_DEPTH = 50
_HINT = (
    "give a DependencySpec with a DependencyResolver class instead, so that the agent makes it in "
    "its own process; or leave it out of the pickled state (__getstate__)"
)


def pickle_launch(launch: AgentLaunch) -> bytes:
    """Pickle what a child needs.

    Raises:
        NotPicklableError: names the path to the part that does not pickle, and its type.
    """
    try:
        return pickle.dumps(launch, protocol=pickle.HIGHEST_PROTOCOL)
    except Exception as e:
        path, culprit, reason = _culprit_in(launch) or ("the agent", launch, str(e))
        kind = type(culprit)
        raise NotPicklableError(
            agent_name=launch.agent.name,
            path=path,
            type_name=f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins."),
            reason=reason,
            hint=_HINT,
        ) from e


def _culprit_in(launch: AgentLaunch) -> tuple[str, Any, str] | None:
    roots: list[tuple[str, Any]] = [("properties", launch.agent.properties)]
    roots += [(f"dependencies[{k!r}]", _content(d)) for k, d in launch.agent.dependency_map.items()]
    roots += [
        (f"guild dependencies[{k!r}]", _content(d)) for k, d in launch.guild_dependencies.items()
    ]
    for path, value in roots:
        if not _pickles(value)[0]:
            return _descend(_quoted(path), value, 0)
    return None


def _quoted(path: str) -> str:
    return path.replace("'", '"')


def _content(dependency: Any) -> Any:
    return dependency.value if dependency.is_value else dependency.properties


def _pickles(value: Any) -> tuple[bool, str]:
    try:
        pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)
    except Exception as e:  # noqa: BLE001 - whatever a value's __reduce__ raises is the reason
        return False, str(e)
    return True, ""


def _descend(path: str, value: Any, depth: int) -> tuple[str, Any, str]:
    if depth < _MAX_DEPTH:
        for child_path, child in _children(path, value):
            if not _pickles(child)[0]:
                return _descend(child_path, child, depth + 1)
    return path, value, _pickles(value)[1]


def _children(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield f"{path}[{_quoted(repr(key))}]", item
    elif isinstance(value, list | tuple | set | frozenset):
        for index, item in enumerate(value):
            yield f"{path}[{index}]", item
    elif not isinstance(value, type) and not callable(value):
        for name, item in _attributes(value).items():
            yield f"{path}.{name}", item


def _attributes(value: Any) -> dict[str, Any]:
    found = dict(getattr(value, "__dict__", {}))
    for cls in type(value).__mro__:
        slots = vars(cls).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if hasattr(value, name):
                found.setdefault(name, getattr(value, name))
    return found
