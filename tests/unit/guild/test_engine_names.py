"""How engines are named, and what is said where there is none of a name."""

from __future__ import annotations

import pytest

from rustic_ai.core.errors import ClassNotFoundError
from rustic_ai.core.guild import GuildBuilder
from rustic_ai.core.guild.execution import SyncExecutionEngine
from rustic_ai.core.guild.execution.engine_names import find_engine

OTHERS = (
    "there are 'multiprocess', 'ray', 'sync'; "
    "another one is named by its class: 'package.module.Class'"
)


def test_an_engine_has_a_short_name_and_that_of_its_class() -> None:
    """Both lead to the class."""
    assert find_engine("sync") is SyncExecutionEngine
    assert find_engine("rustic_ai.core.guild.execution.SyncExecutionEngine") is SyncExecutionEngine


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("mulitprocess", "did you mean 'multiprocess'?"),
        ("Sync", "did you mean 'sync'?"),
        ("threads", OTHERS),
    ],
)
def test_an_unknown_short_name(name: str, hint: str) -> None:
    """The error names it and what is near, and not where classes are looked for."""
    with pytest.raises(ClassNotFoundError) as caught:
        find_engine(name)
    assert str(caught.value) == f"engine {name!r} was not found\nhint: {hint}"


def test_a_wrong_name_in_a_spec() -> None:
    """A program hears the same, from the guild that it launches."""
    with pytest.raises(ClassNotFoundError, match=r"^engine 'snc' was not found\nhint: did you"):
        GuildBuilder("g").set_name("g").set_execution_engine("snc").launch()


def test_an_unknown_class() -> None:
    """Where the name is that of a class, the error says where it was looked for."""
    with pytest.raises(ClassNotFoundError, match="looked in module '__main__'"):
        find_engine("OurOwnEngine")
    with pytest.raises(ClassNotFoundError, match="no module 'nowhere'"):
        find_engine("nowhere.Engine")
