"""Names to classes, by the documented rule."""

from __future__ import annotations

import sys

import pytest

from rustic_ai.core.class_names import find_class, load_class, name_of
from rustic_ai.core.errors import ClassNotFoundError, SpecError
from rustic_ai.core.guild import Agent, AgentBuilder
from rustic_ai.core.guild.agent import Agent as SameAgent
from rustic_ai.core.testing import agents


class NearbyAgent(Agent):
    """Found by its bare name from this module."""

    class Inner(Agent):
        """A class within a class."""


def test_bare_names_are_found_where_they_are_asked_for() -> None:
    """A bare name means the class of the module that asks, and becomes importable."""
    spec = AgentBuilder().set_name("n").set_class_name("NearbyAgent").build_spec()
    assert spec.class_name == f"{__name__}.NearbyAgent"


def test_bare_names_are_found_among_defined_classes() -> None:
    """A bare name also means any class of the wanted kind that is defined already."""
    assert find_class("DyingAgent", Agent) is agents.DyingAgent


@pytest.mark.parametrize("name", [f"{__name__}:NearbyAgent.Inner", f"{__name__}:NearbyAgent"])
def test_names_with_a_colon(name: str) -> None:
    """'module:Class' reaches inner classes too, and the name of a class finds it again."""
    found = load_class(name, Agent)
    assert load_class(name_of(found), Agent) is found


def test_main_comes_before_all_defined_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    """`__main__` goes before other modules, and the caller before `__main__`."""
    main = sys.modules["__main__"]
    monkeypatch.setattr(main, "DyingAgent", NearbyAgent, raising=False)
    assert find_class("DyingAgent", Agent) is NearbyAgent
    assert find_class("DyingAgent", Agent, [vars(agents)]) is agents.DyingAgent


def test_what_is_not_found_says_where_it_looked_and_what_is_near() -> None:
    """The error lists the places and the nearest names."""
    with pytest.raises(ClassNotFoundError) as caught:
        find_class("DyingAgnt", Agent, [globals()])
    text = str(caught.value)
    assert f"looked in module {__name__!r}" in text
    assert "looked in module '__main__'" in text
    assert "did you mean 'rustic_ai.core.testing.agents.DyingAgent'" in text


def test_ambiguous_bare_names_are_refused() -> None:
    """Two classes of one name: the full name is asked for."""
    kinds = [
        type("TwinAgent", (SameAgent,), {"__module__": module, "__qualname__": "TwinAgent"})
        for module in ("one", "two")
    ]
    with pytest.raises(SpecError, match=r"several classes .* one.TwinAgent, two.TwinAgent"):
        find_class("TwinAgent", Agent)
    assert len(kinds) == 2


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("os.path", "'os.path' is not a class"),
        ("collections.OrderedDict", "a class, but no Agent"),
        ("rustic_ai.core.gild.Agent", "no module 'rustic_ai.core.gild'"),
        (".", "not an importable class name"),
    ],
)
def test_names_that_lead_elsewhere(name: str, text: str) -> None:
    """A name that leads to nothing, or to something else, is refused with the reason."""
    with pytest.raises(ClassNotFoundError, match=text):
        find_class(name, Agent)


def test_an_import_error_inside_the_module_is_not_hidden(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pytest.TempPathFactory
) -> None:
    """If the module is there and fails to import something, that is the error."""
    (tmp_path / "needs_more.py").write_text("import a_module_that_is_missing\n")  # type: ignore[operator]
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ModuleNotFoundError, match="a_module_that_is_missing"):
        load_class("needs_more.Agent", Agent)
