"""Errors cross process borders whole."""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Iterator
from typing import Any

import pytest

from rustic_ai.core import errors
from rustic_ai.core.errors import GuildError, Problem, ProcessLimitError, SpecFileError


def error_classes(base: type[GuildError] = GuildError) -> Iterator[type[GuildError]]:
    """Walk the error tree."""
    yield base
    for cls in base.__subclasses__():
        yield from error_classes(cls)


def example_of(cls: type[GuildError]) -> GuildError:
    """Make an error with a value in every field."""
    values: dict[str, Any] = {}
    for field in dataclasses.fields(cls):
        kind = str(field.type)
        values[field.name] = 3 if kind.startswith(("int", "float")) else f"some {field.name}"
        if kind.startswith("list"):
            values[field.name] = []
    return cls(**values)


@pytest.mark.parametrize("cls", list(error_classes()), ids=lambda cls: cls.__name__)
def test_errors_survive_pickling(cls: type[GuildError]) -> None:
    """Every error comes back with its type, facts, text and notes."""
    error = example_of(cls)
    error.add_note("a note")
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is cls
    assert str(back) == str(error)
    assert back.__notes__ == ["a note"]
    for field in dataclasses.fields(cls):
        assert getattr(back, field.name) == getattr(error, field.name)


def test_the_tree_is_drawn_in_full() -> None:
    """The module's docstring draws every class of the core; extras have some of their own."""
    assert errors.__doc__ is not None
    ours = [c.__name__ for c in error_classes() if c.__module__.startswith("rustic_ai.core.")]
    assert len(ours) > 20
    assert [name for name in ours if name not in errors.__doc__] == []


def test_codes_are_unique() -> None:
    """A code names one error."""
    codes = [cls.code for cls in error_classes()]
    assert len(codes) == len(set(codes))


def test_a_hint_follows_the_text() -> None:
    """What to do stands on a line of its own."""
    text = str(ProcessLimitError(guild_id="g", limit=2))
    assert text.startswith("Maximum number of processes (2) reached in guild 'g'\nhint: stop")


def test_problems_of_a_file_show_their_place() -> None:
    """A problem is shown with file, line, column, source and hint."""
    problem = Problem("no such key", "agents.0", 4, 3, "did you mean 'name'?", "  nam: x")
    text = str(SpecFileError(file="g.yaml", problems=[problem]))
    assert text.splitlines() == [
        "error: no such key",
        "  --> g.yaml:4:3",
        "4 |   nam: x",
        "  |   ^",
        "hint: did you mean 'name'?",
    ]
