"""A spec to a guild file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

import yaml
from pydantic import BaseModel

from rustic_ai.core.errors import SpecError
from rustic_ai.core.guild.spec import GuildSpec
from rustic_ai.core.guild.spec_file.yaml_source import CORE_SCHEMA


def write_yaml(spec: GuildSpec) -> str:
    """Write a guild as YAML, without what is at its default; reading it gives the same spec.

    Raises:
        SpecError: a value cannot be written; names its path.
    """
    return yaml.dump(
        _fields(spec, ""),
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        default_flow_style=False,
        width=100,
    )


def write_json(spec: GuildSpec) -> str:
    """Write a guild as JSON; else like `write_yaml`."""
    return json.dumps(_fields(spec, ""), indent=2, ensure_ascii=False) + "\n"


class _Dumper(yaml.SafeDumper):
    """Quotes what YAML 1.1 or 1.2 would not read as text; repeats instead of aliasing."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - PyYAML's
        return True


for _name, _pattern, _first in CORE_SCHEMA:
    _Dumper.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", _pattern, _first)


def _fields(model: BaseModel, path: str) -> dict[str, Any]:
    """Return the fields of a description that are not at their default, as plain values."""
    written: dict[str, Any] = {}
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        if name == "value":  # of a dependency: None is a value, too
            given = name in model.model_fields_set
        else:
            given = value != field.get_default(call_default_factory=True)
        if given:
            written[name] = _plain(value, f"{path}.{name}" if path else name)
    return written


def _plain(value: Any, path: str) -> Any:
    """Return a value as JSON has it.

    Raises:
        SpecError: JSON has nothing like it.
    """
    match value:
        case None | bool() | int() | float() | str():
            return value
        case BaseModel():
            return _fields(value, path)
        case list() | tuple():
            return [_plain(item, f"{path}[{i}]") for i, item in enumerate(value)]
        case Mapping() if all(isinstance(key, str) for key in value):
            return {key: _plain(item, f"{path}[{key!r}]") for key, item in value.items()}
        case PurePath():
            return str(value)
    raise SpecError(
        summary=f"{path} is a {type(value).__name__}, which a file cannot hold",
        hint="give a DependencySpec with a DependencyResolver class instead of the object itself",
    )
