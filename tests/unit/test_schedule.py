"""How tests are shared out among workers."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.schedule import GROUPS, UNIT, group_of, turn

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("start", [start for tests in GROUPS.values() for start in tests])
def test_what_groups_name_is_there(start: str) -> None:
    """A test that is renamed or moved does not leave its group unseen."""
    file, _, name = start.partition("::")
    found = [*ROOT.glob(f"{file}*")]
    assert found
    assert all(f"def {name}" in path.read_text() for path in found)


def test_groups_stay_together_and_long_ones_begin_first() -> None:
    """All other tests are on their own; small ones are kept for the end."""
    together = ["tests/contract/test_ray_engine.py::T::test_a", "tests/faults/test_ray_x.py::test"]
    assert {group_of(nodeid) for nodeid in together} == {"ray"}
    other, unit = "tests/e2e/test_command.py::test_a", f"{UNIT}test_errors.py::test_a"
    assert group_of(other) is group_of(unit) is None
    crowd = "tests/faults/test_wear.py::test_a"
    assert turn(together[0]) < turn(other) < turn(crowd) < turn(unit)
