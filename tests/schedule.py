"""Which tests stay on one worker, and in which order all begin, where several run at a time.

A scheduler of pytest-xdist sees nothing but the ids of tests, so groups are told by these. Its own
`xdist_group` writes them into the ids, which pytest 9.2 ignores without a word.
"""

from __future__ import annotations

from typing import Any

from xdist.scheduler import LoadScopeScheduling

GROUPS = {
    "ray": (  # clusters, which take long to start and are timed by their heartbeats
        "tests/contract/test_ray_",
        "tests/faults/test_ray_",
        "tests/integration/test_beyond_one_machine.py::test_the_census_on_ray",
    ),
    "default port": (  # there is one of it on a machine
        "tests/integration/test_examples.py",
        "tests/integration/test_guild.py::test_defaults_",
        "tests/spec/test_specification.py",
    ),
    "crowds": (  # hundreds of processes, whose company should be unit tests
        "tests/faults/test_wear.py",
        "tests/integration/test_start_methods.py::test_hundreds_at_once",
    ),
}
UNIT = "tests/unit/"
_TURNS = {"ray": 0, "default port": 1, "crowds": 3}


def group_of(nodeid: str) -> str | None:
    """Return the group that a test belongs to, if to any."""
    return next((name for name, tests in GROUPS.items() if nodeid.startswith(tests)), None)


def turn(nodeid: str) -> int:
    """Return when a test begins: long groups first, small tests last, so that all end together."""
    return 4 if nodeid.startswith(UNIT) else _TURNS.get(group_of(nodeid) or "", 2)


class Scheduling(LoadScopeScheduling):
    """Gives each worker the next test, or the next group of tests as a whole."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.config.option.loadscopereorder = False

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid) or nodeid
