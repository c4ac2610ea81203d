"""A spec to a guild file."""

from __future__ import annotations

import json
import math
from typing import Any

import yaml
from pydantic import BaseModel
from pydantic_core import PydanticSerializationError, to_jsonable_python

from rustic_ai.core.errors import SpecError
from rustic_ai.core.guild.spec import AgentSpec, DependencySpec, GuildSpec
from rustic_ai.core.guild.spec_file.yaml_source import CORE_SCHEMA
from rustic_ai.core.messaging.core.messaging_config import MessagingConfig

_USE_A_RESOLVER = (
    "give a DependencySpec with a DependencyResolver class instead of the object itself"
)
_USE_PLAIN_VALUES = "give text, numbers, booleans, lists and dicts"


def write_yaml(spec: GuildSpec) -> str:
    """Write a guild as YAML, without what is at its default; reading it gives the same spec.

    An agent's properties are written as JSON has them, a `Path` as text for example: its class
    turns them back. All else must be plain.

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

    def represent_text(self, text: str) -> yaml.Node:
        """Write line breaks that only YAML 1.1 knows as escapes: folding would turn them."""
        style = '"' if any(c in text for c in "\x85\u2028\u2029") else None
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _Dumper.represent_text)
for _name, _pattern, _first in CORE_SCHEMA:
    _Dumper.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", _pattern, _first)


def _fields(model: BaseModel, path: str) -> dict[str, Any]:
    """Return the fields of a description that are not at their default, as plain values."""
    written: dict[str, Any] = {}
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        if isinstance(model, DependencySpec) and name == "value":  # None is a value, too
            given = model.is_value
        else:
            given = value != field.get_default(call_default_factory=True)
        if given:
            written[name] = _field(model, name, value, f"{path}.{name}" if path else name)
    return written


def _field(model: BaseModel, name: str, value: Any, path: str) -> Any:
    if isinstance(model, AgentSpec) and name == "properties":
        return _jsonable(value, path)
    if isinstance(model, DependencySpec):
        return _plain(value, path, _USE_A_RESOLVER)
    if isinstance(model, MessagingConfig):
        return _plain(value, path, _USE_PLAIN_VALUES)
    return _described(value, path)


def _described(value: Any, path: str) -> Any:
    """Return what the descriptions themselves define: models, tuples and dicts of them, values."""
    match value:
        case BaseModel():
            return _fields(value, path)
        case tuple():
            return [_described(item, f"{path}[{index}]") for index, item in enumerate(value)]
        case dict():
            return {key: _described(item, f"{path}[{key!r}]") for key, item in value.items()}
        case _:
            return value


def _jsonable(value: Any, path: str) -> Any:
    """Return typed values in the form from which their model makes them again."""
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {key: _jsonable(item, f"{path}[{key!r}]") for key, item in value.items()}
    try:
        return _plain(to_jsonable_python(value), path, _USE_PLAIN_VALUES)
    except PydanticSerializationError as e:
        raise _refusal(path, f"a {type(value).__name__}", _USE_PLAIN_VALUES) from e


def _plain(value: Any, path: str, hint: str) -> Any:
    """Return a value of which JSON has the like, so that it comes back as it was.

    Raises:
        SpecError: JSON has nothing like it.
    """
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise _refusal(path, f"a dict with the key {key!r}", hint)
        return {key: _plain(item, f"{path}[{key!r}]", hint) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item, f"{path}[{index}]", hint) for index, item in enumerate(value)]
    if type(value) is float and not math.isfinite(value):
        raise _refusal(path, str(value), hint)
    if type(value) is str and any("\ud800" <= character <= "\udfff" for character in value):
        raise _refusal(path, "text with half a character (a lone surrogate)", hint)
    if value is None or type(value) in {bool, int, float, str}:
        return value
    raise _refusal(path, f"a {type(value).__name__}", hint)


def _refusal(path: str, what: str, hint: str) -> SpecError:
    return SpecError(summary=f"{path} is {what}, which a file cannot hold", hint=hint)
