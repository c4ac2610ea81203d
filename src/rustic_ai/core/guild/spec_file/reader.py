"""A guild file to a spec, or to everything that is wrong with it."""

from __future__ import annotations

import json
from pathlib import Path as FilePath
from typing import Any

from pydantic import ValidationError

from rustic_ai.core.errors import DependencyError, Problem, SpecFileError
from rustic_ai.core.guild.execution.checks import checked_spec
from rustic_ai.core.guild.spec import DependencySpec, GuildSpec
from rustic_ai.core.guild.spec_file.classes import check_classes
from rustic_ai.core.guild.spec_file.imports import make_importable
from rustic_ai.core.guild.spec_file.json_source import compose_json, is_json
from rustic_ai.core.guild.spec_file.shape import report_shape
from rustic_ai.core.guild.spec_file.source import Findings, Node, Path, nearest
from rustic_ai.core.guild.spec_file.yaml_source import compose_yaml


def read_guild_file(path: FilePath) -> GuildSpec:
    """Read a guild from a YAML or JSON file.

    The folder of the file and the working directory are put on ``sys.path`` and stay there, so
    that the classes that the file names can be imported, here and by the agents' processes.

    Raises:
        SpecFileError: names every problem with its line and column.
    """
    make_importable(path.parent.resolve(), FilePath.cwd())
    return read_guild_text(_text_of(path), str(path))


def read_guild_text(text: str, file: str = "<text>") -> GuildSpec:
    """Read a guild from YAML or JSON text.

    Class names become importable ones, as in `AgentBuilder.build_spec`.

    Args:
        text: the text.
        file: what errors call it; with ``.json`` at its end the text must be JSON.

    Raises:
        SpecFileError: names every problem with its line and column.
    """
    findings = Findings(file, text)
    compose = compose_json if file.endswith(".json") or is_json(text) else compose_yaml
    root = compose(text, findings)
    if root is None:
        findings.raise_any()
        findings.add("there is nothing in it", (), 0, "see 'rustic-ai schema' for what can be")
        findings.raise_any()
    assert root is not None
    spec = _shaped(root, findings)
    _check_ids(root, findings)
    names = check_classes(root, findings)
    findings.raise_any()
    assert spec is not None
    spec = _with_importable_names(spec, names)
    _check_wiring(spec, root, findings)
    findings.raise_any()
    return spec


def _text_of(path: FilePath) -> str:
    try:
        data = path.read_bytes()
    except OSError as e:
        hint = ""
        if isinstance(e, FileNotFoundError) and path.parent.is_dir():
            hint = nearest(path.name, [sibling.name for sibling in path.parent.iterdir()])
        problem = Problem(f"cannot be read: {e.strerror}", path="", hint=hint)
        raise SpecFileError(file=str(path), problems=[problem]) from e
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        line = data.count(b"\n", 0, e.start) + 1
        problem = Problem(
            f"not UTF-8: byte 0x{data[e.start]:02x}",
            path="",
            line=line,
            column=e.start - data.rfind(b"\n", 0, e.start),
            hint="save the file as UTF-8",
        )
        raise SpecFileError(file=str(path), problems=[problem]) from e


def _shaped(root: Node, findings: Findings) -> GuildSpec | None:
    """Return the spec as the file gives it; strict, so that it says what the schema says."""
    try:
        return GuildSpec.model_validate_json(json.dumps(root.value), strict=True)
    except ValidationError as e:
        report_shape(e, GuildSpec, root, (), findings)
        return None


def _check_ids(root: Node, findings: Findings) -> None:
    """Point at every id that another agent has; pydantic only knows that there are some."""
    first: dict[Any, int] = {}
    for key, agent in root.find(("agents",)).children.items():
        node = agent.children.get("id")
        if node is None or not isinstance(node.value, str):
            continue
        if node.value in first:
            hint = f"the other one is in line {findings.line_of(first[node.value])}"
            what = f"several agents have the id {node.value!r}"
            findings.add(what, ("agents", key, "id"), node.start, hint)
        first.setdefault(node.value, node.start)


def _with_importable_names(spec: GuildSpec, names: dict[Path, str]) -> GuildSpec:
    def named(path: Path, map_: dict[str, DependencySpec]) -> dict[str, DependencySpec]:
        return {
            key: dependency.model_copy(update={"class_name": names.get((*path, key, "class_name"))})
            for key, dependency in map_.items()
        }

    agents = tuple(
        agent.model_copy(
            update={
                "class_name": names["agents", index, "class_name"],
                "dependency_map": named(("agents", index, "dependency_map"), agent.dependency_map),
            }
        )
        for index, agent in enumerate(spec.agents)
    )
    shared = named(("dependency_map",), spec.dependency_map)
    return spec.model_copy(update={"agents": agents, "dependency_map": shared})


def _check_wiring(spec: GuildSpec, root: Node, findings: Findings) -> None:
    """Find the dependencies that an agent would miss at its launch."""
    for index, agent in enumerate(spec.agents):
        try:
            checked_spec(spec, agent)
        except DependencyError as e:
            path: Path = ("agents", index)
            findings.add(e.describe(), path, root.find(path).start, e.hint)
