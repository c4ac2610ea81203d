"""How an agent's end is told."""

from __future__ import annotations

import pytest

from rustic_ai.core.guild.execution.multiprocess.channel import Failed
from rustic_ai.core.guild.execution.multiprocess.exit_report import (
    describe_ending,
    machine_memory_mb,
)
from rustic_ai.core.guild.execution.multiprocess.launchers import Ending
from rustic_ai.core.guild.execution.stats import ExitReport

FAILED = Failed("ValueError", "no", "Traceback")


@pytest.mark.parametrize(
    ("exitcode", "failure", "killed_because", "text"),
    [
        (0, None, "", "ended with exit code 0"),
        (5, None, "", "ended with exit code 5"),
        (70, FAILED, "", "failed: ValueError: no"),
        (-9, FAILED, "it did not stop in time", "was killed: it did not stop in time"),
        (-11, None, "", "was ended by SIGSEGV"),
        (-9, None, "", "was killed from outside by SIGKILL at 50 MB peak memory"),
        (-64, None, "", "was ended by SIGRTMAX"),
        (-99, None, "", "was ended by signal 99"),
    ],
)
def test_the_reason_of_an_end(
    exitcode: int, failure: Failed | None, killed_because: str, text: str
) -> None:
    """Exit code, signal, the agent's own words and our own deeds are told apart."""
    assert describe_ending(Ending(exitcode, 50.0, 0.1), failure, killed_because) == text


def test_a_large_process_killed_is_the_kernels_doing() -> None:
    """The memory killer is only suspected where much memory was used."""
    ending = Ending(-9, machine_memory_mb() / 2, 0.1)
    assert "probably by the kernel for lack of memory" in describe_ending(ending, None, "")


@pytest.mark.parametrize(
    ("exitcode", "requested", "failed"),
    [
        (0, False, False),
        (1, False, True),
        (-9, False, True),
        (-9, True, False),
        (None, True, False),
    ],
)
def test_what_counts_as_a_failure(exitcode: int | None, requested: bool, failed: bool) -> None:
    """An end that was asked for is no failure, nor is exit code 0."""
    report = ExitReport("i", "n", exitcode, "ended", requested=requested, lived=1.25)
    assert report.failed is failed
    assert str(report) == "agent 'n' ended after 1.2 s"
