"""What runs is what was installed: the wheel's compiled modules, or the sources that one edits."""

from __future__ import annotations

import importlib
import os
import tomllib
from pathlib import Path

import pytest

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"
HOOK = tomllib.loads(PYPROJECT.read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"]
MODULES = HOOK["custom"]["modules"]


@pytest.mark.parametrize("name", MODULES)
def test_what_is_listed_is_compiled_in_a_wheel_alone(name: str) -> None:
    """In a wheel all of it is; where sources are edited, no library of before shadows them."""
    suffix = Path(str(importlib.import_module(name).__file__)).suffix
    assert suffix == (".so" if "RUSTIC_EXPECT_COMPILED" in os.environ else ".py")
