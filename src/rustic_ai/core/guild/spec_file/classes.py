"""The classes that a file names: found, of the right kind, and content with their properties."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from pydantic import ValidationError

from rustic_ai.core.class_names import find_class, name_of
from rustic_ai.core.errors import ClassNotFoundError, MessagingConfigError, SpecError
from rustic_ai.core.guild.agent.agent import Agent
from rustic_ai.core.guild.di.resolver import DependencyResolver
from rustic_ai.core.guild.execution.engine_names import find_engine
from rustic_ai.core.guild.spec_file.imports import import_failure
from rustic_ai.core.guild.spec_file.shape import report_shape
from rustic_ai.core.guild.spec_file.source import Findings, Node, Path
from rustic_ai.core.messaging.core.messaging_config import MessagingConfig

T = TypeVar("T")


def check_classes(root: Node, findings: Findings) -> dict[Path, str]:
    """Look every class of the file up, whatever else is wrong with the file.

    Returns:
        The importable name of every class, by the path of its ``class_name``.
    """
    names: dict[Path, str] = {}
    for path, owner in _agents(root):
        agent_class = _class_at(owner, path, Agent, findings, names)
        if agent_class is not None:
            _check_properties(agent_class, root, owner, path, findings)
    for path, owner in _dependencies(root):
        _class_at(owner, path, DependencyResolver, findings, names)
    _check_engine(root, findings)
    _check_messaging(root, findings)
    return names


def _agents(root: Node) -> Iterator[tuple[Path, Node]]:
    agents = root.find(("agents",))
    if agents is not root:
        yield from ((("agents", key), node) for key, node in agents.children.items())


def _dependencies(root: Node) -> Iterator[tuple[Path, Node]]:
    for path, owner in [((), root), *_agents(root)]:
        found = owner.children.get("dependency_map")
        for key, node in found.children.items() if found else ():
            yield (*path, "dependency_map", key), node


def _class_at(
    owner: Node, path: Path, base: type[T], findings: Findings, names: dict[Path, str]
) -> type[T] | None:
    node = owner.children.get("class_name")
    if node is None or not isinstance(node.value, str) or not node.value:
        return None  # reported with the shape of the file, where it matters
    name, here = node.value, (*path, "class_name")
    cls = _found(lambda: find_class(name, base), name, node, here, findings)
    if cls is not None:
        names[here] = name_of(cls)
    return cls


def _found(
    find: Callable[[], T], name: str, node: Node, path: Path, findings: Findings
) -> T | None:
    """Return what `find` finds; what it raises is a problem of the file."""
    try:
        return find()
    except ClassNotFoundError as e:
        places = f" (looked in {', '.join(e.looked_in)})" if e.looked_in else ""
        what = e.summary or f"class {e.name!r} was not found"
        findings.add(what + places, path, node.start, e.hint)
    except (SpecError, MessagingConfigError) as e:
        findings.add(e.describe(), path, node.start, e.hint)
    except (Exception, SystemExit) as e:  # noqa: BLE001 - whatever the user's modules raise
        module = name.partition(":")[0] if ":" in name else name.rpartition(".")[0]
        findings.add(import_failure(module or name, e).describe(), path, node.start)
    return None


def _check_properties(
    agent_class: type[Agent[Any]], root: Node, owner: Node, path: Path, findings: Findings
) -> None:
    given = owner.children.get("properties")
    properties = given.value if given is not None else {}
    if not isinstance(properties, dict):
        return  # reported with the shape of the file
    try:
        agent_class.props_type.model_validate(properties)
    except ValidationError as e:
        report_shape(e, agent_class.props_type, root, (*path, "properties"), findings)


def _check_engine(root: Node, findings: Findings) -> None:
    path: Path = ("properties", "execution_engine")
    node = root.find(path)
    if isinstance(node.value, str) and node.value:
        name = node.value
        _found(lambda: find_engine(name), name, node, path, findings)


def _check_messaging(root: Node, findings: Findings) -> None:
    path: Path = ("properties", "messaging")
    node = root.find(path)
    try:
        config = MessagingConfig.model_validate(node.value)
    except ValidationError:
        return  # not given, or reported with the shape of the file
    _found(config.backend_type, config.backend_module, node, path, findings)
