"""What pydantic has to say about a file, in the words and places of the file."""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from rustic_ai.core.guild.spec import DUPLICATE_ID
from rustic_ai.core.guild.spec_file.source import Findings, Node, Path, nearest, path_text

_WANTED = {
    "string": "text",
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
    "list": "a list",
    "tuple": "a list",
    "set": "a list",
    "dict": "a mapping",
    "mapping": "a mapping",
    "model": "a mapping",
}
"""First word of pydantic's error types -> what people call it."""

_KEY = "[key]"
"""How pydantic marks an error of a key, and not of its value."""


def report_shape(
    error: ValidationError, model: type[BaseModel], root: Node, at: Path, findings: Findings
) -> None:
    """Note every error of a validation.

    Args:
        error: what pydantic found.
        model: what was validated.
        root: the top of the file.
        at: path of the validated value.
        findings: where to note it.
    """
    for details in error.errors(include_url=False):
        path = (*at, *details["loc"])
        if details["type"] == DUPLICATE_ID:
            continue  # the reader points at each of them
        if details["type"] == "extra_forbidden":
            known = _known_keys(model, details["loc"][:-1])
            hint = nearest(str(path[-1]), known) or f"known keys: {', '.join(known) or 'none'}"
            message = f"unknown key {str(path[-1])!r}{_inside(path[:-1])}"
            findings.add(message, path, root.find_key(path), hint)
        elif details["type"] == "missing":
            message = f"missing key {str(path[-1])!r}{_inside(path[:-1])}"
            findings.add(message, path, root.find(path).start, _purpose(model, details["loc"]))
        elif path and path[-1] == _KEY:
            owner = path_text(path[:-2]) or "the file"
            message = f"a key of {owner} {_complaint(details)}"
            findings.add(message, path[:-1], root.find_key(path[:-1]))
        else:
            message = f"{path_text(path) or 'the file'} {_complaint(details)}"
            findings.add(message, path, root.find(path).start, _quotes(details))


def _inside(path: Path) -> str:
    return f" in {path_text(path)}" if path else ""


def _complaint(details: ErrorDetails) -> str:
    """Say what a value must be; follows the name of the value."""
    kind, _, rest = details["type"].partition("_")
    given, message = details["input"], details["msg"]
    if kind in _WANTED and rest in {"type", "parsing", "from_float", "attributes_type"}:
        return f"must be {_WANTED[kind]}, not {_in_words(given)}"
    if details["type"] == "string_too_short" and given == "":
        return "must not be empty"
    if message.startswith("Input should be "):
        return f"must be {message.removeprefix('Input should be ')}, not {_in_words(given)}"
    message = message.removeprefix("Value error, ").removeprefix("Assertion failed, ")
    return f"is wrong: {message[:1].lower()}{message[1:]}"


def _quotes(details: ErrorDetails) -> str:
    scalar = isinstance(details["input"], bool | int | float)
    return "put it in quotes" if details["type"] == "string_type" and scalar else ""


def _in_words(value: Any) -> str:
    match value:
        case None:
            return "nothing"
        case bool():
            return str(value).lower()
        case int() | float():
            return f"the number {value}"
        case str():
            return f"the text {value!r}" if len(value) <= 40 else f"the text {value[:40]!r}..."
        case list():
            return "a list"
        case _:
            return "a mapping"


def _purpose(model: type[BaseModel], loc: Path) -> str:
    owner = _owner(model, loc[:-1])
    field = owner.model_fields.get(str(loc[-1])) if owner else None
    return f"{loc[-1]}: {field.description}" if field and field.description else ""


def _known_keys(model: type[BaseModel], loc: Path) -> list[str]:
    owner = _owner(model, loc)
    return [f.alias or name for name, f in owner.model_fields.items()] if owner else []


def _owner(model: type[BaseModel], loc: Path) -> type[BaseModel] | None:
    """Return the model that stands at `loc` in a value of `model`."""
    annotation: Any = model
    for part in loc:
        annotation = _step(annotation, part)
    return next(_models(annotation), None)


def _models(annotation: Any) -> Any:
    """Yield the models that an annotation allows."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) in {Union, types.UnionType, Annotated}:
        for option in get_args(annotation):
            yield from _models(option)


def _step(annotation: Any, part: str | int) -> Any:
    """Return the annotation one key or index further down; None where there is none."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin in {Union, types.UnionType, Annotated}:
        steps = (_step(option, part) for option in args)
        return next((step for step in steps if step is not None), None)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        fields = annotation.model_fields
        named = [f for name, f in fields.items() if part in {name, f.alias}]
        return named[0].annotation if named else None
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return args[1]
    if isinstance(origin, type) and issubclass(origin, Sequence | set | frozenset):
        return args[0]
    return None
