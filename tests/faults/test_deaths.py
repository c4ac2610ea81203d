"""Why it died: every end has a report that says so."""

from __future__ import annotations

import logging
import os
import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from rustic_ai.core.errors import AgentStartError, GuildError
from rustic_ai.core.guild import AgentSpec, Guild
from rustic_ai.core.guild.execution import MultiProcessExecutionEngine
from rustic_ai.core.guild.execution.stats import ExitReport
from rustic_ai.core.guild.topics import GuildTopics
from rustic_ai.core.testing.waiting import wait_until
from tests.misbehaving import HangingStartAgent, ObedientAgent, UnpicklableAgent
from tests.support import NO_MESSAGES, embedded, spec_of

INBOX = GuildTopics.get_agent_inbox("a")
METHODS = pytest.mark.parametrize("method", ["forkserver", "spawn"])


@contextmanager
def one_agent(
    port: int, limits: dict[str, Any] | None = None, **settings: Any
) -> Iterator[tuple[MultiProcessExecutionEngine, Guild]]:
    """Run one obedient agent, with limits of its own."""
    fields = spec_of(ObedientAgent, "a").model_dump() | {"limits": limits}
    with (
        MultiProcessExecutionEngine("g", **settings) as engine,
        Guild("g", engine, embedded(port)) as guild,
    ):
        guild.launch_agent(AgentSpec.model_validate(fields))
        yield engine, guild


def tell(guild: Guild, what: str) -> int:
    """Tell the agent to do something; returns the id of the message."""
    return guild.publish({"do": what}, INBOX).id


def ask(guild: Guild, what: str) -> Any:
    return guild.request({"do": what}, INBOX, timeout=20).payload["result"]


def report_of(engine: MultiProcessExecutionEngine, timeout: float = 15) -> ExitReport:
    return wait_until(lambda: engine.get_exit_report("g", "a"), timeout)  # type: ignore[return-value]


@METHODS
def test_a_segmentation_fault_shows_its_stack(free_port: int, method: Any) -> None:
    """Signal, message in hand, stacks, last lines, memory and CPU time are in the report."""
    with one_agent(free_port, start_method=method) as (engine, guild):
        pid = engine.get_process_info("g", "a")["pid"]
        message = tell(guild, "segfault")
        report = report_of(engine)
    assert (report.signal, report.exitcode) == ("SIGSEGV", -signal.SIGSEGV)
    assert (report.message_id, report.pid, report.generation) == (message, pid, 1)
    assert "in do_segfault" in report.stacks
    assert report.last_lines == "about to touch what is not mine"
    assert 10 < (report.peak_memory_mb or 0) < 1000
    assert 0 < (report.cpu_seconds or 0) < 60
    assert 0 < report.lived < 60
    details = report.details()
    assert f"was ended by SIGSEGV after {report.lived:.1f} s, handling message {message}" in details
    for part in ("in do_segfault", "about to touch", f"pid {pid}", "peak memory", "CPU time"):
        assert part in details


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ("abort", "was ended by SIGABRT"),
        ("kill", r"was killed from outside by SIGKILL at \d+ MB peak memory"),
        ("exit_badly", "ended with exit code 1"),
        ("exit_normally", "ended with exit code 0"),
    ],
)
def test_other_ends(free_port: int, what: str, text: str) -> None:
    """Signals and exit codes are named; what was handled is known."""
    with one_agent(free_port) as (engine, guild):
        message = tell(guild, what)
        report = report_of(engine)
    assert report.message_id == message
    assert not report.requested
    assert re.search(text, str(report))
    if what == "abort":
        assert "in do_abort" in report.stacks
    if what == "exit_badly":
        assert report.last_lines == "the agent has had enough"


def test_a_stopped_agent_has_a_report_too(free_port: int) -> None:
    """An end that was asked for is told as such."""
    reports: list[ExitReport] = []
    with one_agent(free_port) as (engine, guild):
        engine.add_exit_listener(reports.append)
        assert ask(guild, "tell")["pid"]
        guild.remove_agent("a")
    (report,) = reports
    assert (report.exitcode, report.requested, report.failed) == (0, True, False)
    assert report.message_id is None


@METHODS
@pytest.mark.parametrize("what", ["hold_the_gil", "stop"])
def test_a_process_without_heartbeat_is_ended(free_port: int, method: Any, what: str) -> None:
    """C code that keeps the GIL, and a stopped process, are found; the stack names the culprit."""
    with one_agent(free_port, start_method=method, heartbeat_timeout=2) as (engine, guild):
        if what == "stop":
            os.kill(engine.get_process_info("g", "a")["pid"], signal.SIGSTOP)
        else:
            tell(guild, what)
        report = report_of(engine)
    assert "was killed: no heartbeat for" in report.reason
    assert ("in hold_the_gil" if what != "stop" else "in _run") in report.stacks


@pytest.mark.parametrize("what", ["spin", "sleep"])
def test_an_endless_handler_is_ended(free_port: int, what: str) -> None:
    """With `handler_timeout` a handler that loops or waits for ever is ended, and named."""
    with one_agent(free_port, handler_timeout=0.8) as (engine, guild):
        message = tell(guild, what)
        report = report_of(engine)
    assert "was killed: one message was handled for" in report.reason
    assert f"in do_{what}" in report.stacks
    assert report.message_id == message


def test_a_busy_handler_is_no_hang(free_port: int) -> None:
    """Without `handler_timeout` a loop of Python code goes on: its heart beats."""
    with one_agent(free_port, heartbeat_timeout=2) as (engine, guild):
        tell(guild, "spin")
        wait_until(lambda: (engine.get_process_info("g", "a")["busy_for"] or 0) > 2.2)
        info = engine.get_process_info("g", "a")
        assert info["heartbeat_age"] < 2
        assert info["status"] == "RUNNING"
        assert "in spin" in engine.dump_stacks("g", "a")
        assert "in spin" in engine.dump_stacks("g", "a")
        os.kill(info["pid"], signal.SIGKILL)


def test_stacks_on_request(free_port: int) -> None:
    """Stacks of an agent that sleeps, or holds the GIL; it goes on. Of nobody: nothing."""
    with one_agent(free_port) as (engine, guild):
        assert "in serve" in engine.dump_stacks("g", "a")
        tell(guild, "hold_the_gil")
        wait_until(lambda: engine.get_process_info("g", "a")["busy_for"])
        assert "in hold_the_gil" in wait_until(lambda: engine.dump_stacks("g", "a"))
        assert engine.is_agent_running("g", "a")
        assert engine.dump_stacks("g", "nobody") == ""
        os.kill(engine.get_process_info("g", "a")["pid"], signal.SIGKILL)


@METHODS
def test_a_start_that_hangs_shows_where(method: Any) -> None:
    """The error of a start that took too long holds the stack of the constructor."""
    with (
        MultiProcessExecutionEngine("g", start_timeout=2, start_method=method) as engine,
        Guild("g", engine, NO_MESSAGES) as guild,
        pytest.raises(AgentStartError, match="not ready within 2 s") as caught,
    ):
        guild.launch_agent(spec_of(HangingStartAgent, "h"))
    assert "in hold_the_gil" in caught.value.remote_traceback


def test_an_exception_that_does_not_pickle_travels_as_text() -> None:
    """The traceback is there; the cause is not, since it cannot be."""
    with (
        MultiProcessExecutionEngine("g") as engine,
        Guild("g", engine, NO_MESSAGES) as guild,
        pytest.raises(AgentStartError, match="Unpicklable: my own words") as caught,
    ):
        guild.launch_agent(spec_of(UnpicklableAgent, "u"))
    assert "raise Unpicklable(" in caught.value.remote_traceback
    assert caught.value.__cause__ is None


# Limits


@METHODS
def test_limits_are_put_on_the_process(free_port: int, method: Any) -> None:
    """Files, niceness, CPUs and the memory killer's preference are as the limits say."""
    cpu = min(os.sched_getaffinity(0))
    limits = {"open_files": 100, "nice": 7, "cpu_affinity": [cpu], "oom_score_adj": 900}
    with one_agent(free_port, limits, start_method=method) as (_, guild):
        told = ask(guild, "tell")
    assert (told["files"], told["nice"], told["affinity"]) == (100, 7, [cpu])
    assert told["oom_score_adj"] == 900


def test_the_kernel_takes_agents_first(free_port: int) -> None:
    """By default an agent volunteers for the memory killer."""
    with one_agent(free_port) as (_, guild):
        assert ask(guild, "tell")["oom_score_adj"] == 500


def test_a_limit_that_cannot_be_set_fails_the_start(free_port: int) -> None:
    """The error names the limit, its value and what there is."""
    with (
        pytest.raises(AgentStartError, match=r"limits.cpu_affinity = \[4095\] cannot be set") as e,
        one_agent(free_port, {"cpu_affinity": [4095]}),
    ):
        pass
    assert isinstance(e.value.__cause__, GuildError)


def test_the_address_space_is_limited(free_port: int) -> None:
    """More memory than allowed is a MemoryError in the handler; the agent lives on."""
    with one_agent(free_port, {"address_space": 1 << 30}) as (_, guild):
        with pytest.raises(GuildError, match="MemoryError"):
            ask(guild, "allocate")
        assert ask(guild, "tell")["pid"]


def test_a_leak_is_ended_by_the_watchdog(free_port: int) -> None:
    """An agent that grows beyond its memory is killed, and the report says how large it was."""
    with one_agent(free_port, {"memory": 200_000_000}) as (engine, guild):
        tell(guild, "leak")
        report = report_of(engine)
    assert "its limit is 200 MB" in report.reason
    assert (report.peak_memory_mb or 0) >= 200


def test_cpu_time_is_limited(free_port: int) -> None:
    """An agent that uses up its CPU time is ended, with the limit's name."""
    with one_agent(free_port, {"cpu_seconds": 1}) as (engine, guild):
        tell(guild, "spin")
        report = report_of(engine)
    assert report.signal == "SIGXCPU"
    assert "limits.cpu_seconds" in report.reason


def test_an_agent_is_replaced_after_so_many_messages(free_port: int) -> None:
    """With `max_messages` a fresh process takes over between two messages; no failure."""
    with one_agent(free_port, {"max_messages": 2}) as (engine, guild):
        pids = []
        for generation in (1, 2, 3):
            wait_until(lambda g=generation: engine.get_process_info("g", "a")["generation"] == g)  # type: ignore[misc]
            wait_until(lambda: engine.is_agent_running("g", "a"))
            pids += [ask(guild, "tell")["pid"] for _ in range(2)]
        report = report_of(engine)
    assert [pids.count(pid) for pid in dict.fromkeys(pids)] == [2, 2, 2]
    assert "it has handled 2 messages" in report.reason
    assert not report.failed


def test_an_agent_is_replaced_at_its_age(free_port: int) -> None:
    """With `max_age` a fresh process takes over in time."""
    with one_agent(free_port, {"max_age": 0.3}) as (engine, _):
        wait_until(lambda: engine.get_process_info("g", "a")["generation"] == 2)
        assert "retired: it has lived for 0.3 s" in report_of(engine).reason


# What they say


def test_prints_and_logs_carry_the_agents_name(free_port: int, capfd: Any) -> None:
    """By default both go to the program's own streams, line by line with the agent's name."""
    with one_agent(free_port) as (_, guild):
        ask(guild, "print")
        pid = ask(guild, "tell")["pid"]
    said = capfd.readouterr()
    assert f"[a {pid}] printed by the handler\n" in said.out
    assert f"[a {pid}] WARNING tests.talker: logged by the handler\n" in said.err


def test_records_can_be_handled_by_the_programs_own_handlers(
    free_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    """With `log_forwarding` records arrive with logger, level, place, time and traceback."""
    with one_agent(free_port, log_forwarding=True) as (_, guild):
        pid = ask(guild, "tell")["pid"]
        ask(guild, "print")
        ask(guild, "log_failure")
    logged, failed = [r for r in caplog.records if r.name == "tests.talker"]
    assert logged.getMessage() == f"[a {pid}] logged by the handler"
    assert (logged.levelname, logged.process, logged.funcName) == ("WARNING", pid, "do_print")
    assert logged.filename == "misbehaving.py"
    assert "in do_raise" in str(failed.exc_text)


def test_slow_handlers_lose_records_and_are_told(
    free_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    """A flood that the program cannot take is cut, counted and said; the agent does not wait."""
    with one_agent(free_port, log_forwarding=True) as (_, guild):
        ask(guild, "log_much")
        wait_until(lambda: "tests.talker" in {r.name for r in caplog.records})
        ask(guild, "print")
    mine = [r for r in caplog.records if r.name == "tests.talker"]
    lost = [r for r in caplog.records if "were lost" in r.message]
    counted = sum(int(r.message.split()[0]) for r in lost)
    assert len(mine) + counted == 5001


@METHODS
def test_records_that_are_lost_last_are_told(
    free_port: int, caplog: pytest.LogCaptureFixture, method: Any
) -> None:
    """Where the agent logs nothing more, its end says how many there were."""
    goes_on = threading.Event()

    def wait(_: logging.LogRecord) -> bool:
        return goes_on.wait(30)

    talker = logging.getLogger("tests.talker")
    talker.addFilter(wait)
    try:
        with one_agent(free_port, log_forwarding=True, start_method=method) as (_, guild):
            ask(guild, "log_much")
            goes_on.set()
    finally:
        talker.removeFilter(wait)
    mine = [r for r in caplog.records if r.name == "tests.talker"]
    lost = [r for r in caplog.records if "were lost" in r.message]
    assert len(mine) + sum(int(r.message.split()[0]) for r in lost) == 5000
