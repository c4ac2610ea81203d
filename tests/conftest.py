"""Every test runs in a runtime directory of its own, and fails if it leaves anything behind."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from rustic_ai.core.messaging.core.message_id import GemstoneGenerator
from rustic_ai.core.settings import RUNTIME_DIR_VARIABLE
from rustic_ai.core.testing.leaks import LeakCheck
from tests import schedule
from tests.ports import free_tcp_port, ports

_EXTRAS = ("redis", "nats", "ray")
_MISSING = [extra for extra in _EXTRAS if importlib.util.find_spec(extra) is None]
if os.environ.get("RUSTIC_REQUIRE_SERVERS") != "1":  # there, what is missing is an error
    collect_ignore_glob = [f"*/test_{extra}_*.py" for extra in _MISSING]
    if _MISSING:
        collect_ignore_glob.append("*/test_beyond_one_machine.py")
_RAY_KEEPS = re.compile(r"thread Dummy-|\d+ file descriptors")
"""Its log files and its event loop, as long as a program lives that has used it."""

# A machine that is shared may be slow at any moment; what hangs is found by `timeout`.
hypothesis.settings.register_profile("tests", deadline=None)
hypothesis.settings.load_profile("tests")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the tests for several workers."""
    items.sort(key=lambda item: schedule.turn(item.nodeid))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> schedule.Scheduling:
    """Let workers share the tests with respect to what only one may use at a time."""
    return schedule.Scheduling(config, log)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which tests are not even collected."""
    if _MISSING:
        terminalreporter.write_line(
            f"not run: tests on {', '.join(_MISSING)}, not installed here; get them: make servers"
        )


@pytest.fixture(scope="session", autouse=True)
def leak_check() -> Iterator[LeakCheck]:
    """Mark this session's processes, and look once more when all tests are through."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # Started in the background of a shell; the programs of the tests would inherit that.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="rustic-tests-") as runtime:
        os.environ[RUNTIME_DIR_VARIABLE] = runtime
        GemstoneGenerator().get_id()  # leases the machine number, which is held for good
        ports()  # so are these
        check = LeakCheck(directories=(Path(runtime),))
        before = check.look()
        yield check
        left = check.left_behind(before)
        if "ray" in sys.modules:
            left = [what for what in left if not _RAY_KEEPS.match(what)]
        assert left == []


@pytest.fixture(autouse=True)
def nothing_is_left(leak_check: LeakCheck) -> Iterator[None]:
    """Fail a test that leaves a process, thread, descriptor or file; the next ones are as ever."""
    before = leak_check.look()
    yield
    left = leak_check.left_behind(before)
    if left:
        leak_check.end_left(before)
    assert left == [], "the test left this behind"


@pytest.fixture
def free_port() -> int:
    """Give a TCP port of this machine that nobody listens on, and that nobody else will take."""
    return free_tcp_port()
