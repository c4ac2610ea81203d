"""The multiprocess engine beyond the contract: processes, limits, names, start method."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from rustic_ai.core.errors import NotPicklableError, ProcessLimitError
from rustic_ai.core.guild import Agent, AgentBuilder, Guild, ProcessContext
from rustic_ai.core.guild.agent import JsonDict, processor
from rustic_ai.core.guild.execution import MultiProcessExecutionEngine
from rustic_ai.core.guild.execution.multiprocess import (
    MultiProcessAgentTracker,
    MultiProcessAgentWrapper,
)
from rustic_ai.core.guild.topics import GuildTopics
from rustic_ai.core.testing.agents import MultiplyingAgent, Number
from rustic_ai.core.testing.waiting import wait_until
from tests.support import (
    NO_MESSAGES,
    PROGRAMS,
    embedded,
    run_program,
    spec_of,
    start_program,
)


class WhereAgent(Agent):
    """Tells of its process."""

    @processor(JsonDict)
    def tell(self, ctx: ProcessContext[JsonDict]) -> None:
        """Answer with environment, directory and session."""
        ctx.send_dict(
            {
                "variable": os.environ.get("TEST_VARIABLE", ""),
                "temporary": tempfile.gettempdir(),
                "cwd": str(Path.cwd()),
                "leads_session": os.getsid(0) == os.getpid(),
                "threads": threading.active_count(),
            }
        )


@pytest.fixture
def engine() -> Iterator[MultiProcessExecutionEngine]:
    with MultiProcessExecutionEngine("g", max_processes=2) as engine:
        yield engine


@pytest.fixture
def guild(engine: MultiProcessExecutionEngine, free_port: int) -> Iterator[Guild]:
    with Guild("g", engine, embedded(free_port)) as guild:
        yield guild


def test_every_agent_has_its_own_process(guild: Guild) -> None:
    """Two agents answer from two processes, neither of them ours."""
    pids = set()
    for name in "ab":
        guild.launch_agent(spec_of(MultiplyingAgent, name))
        inbox = GuildTopics.get_agent_inbox(name)
        pids.add(guild.request(Number(value=1), inbox).payload["pid"])
    assert len(pids | {os.getpid()}) == 3


def test_messages_right_after_launch_are_all_received(guild: Guild) -> None:
    """Of 1,000 messages that are published as soon as `launch_agent` returns, none is lost."""
    for name in ("first", "second"):
        spec = spec_of(MultiplyingAgent, name, factor=1)
        with guild.collect(GuildTopics.DEFAULT_TOPICS[0]) as box:
            guild.launch_agent(spec)
            for n in range(500):
                guild.publish(Number(value=n))
            messages = box.take(1000, timeout=30)
        answers = [m for m in messages if m.sender.name == name]
        assert [m.payload["value"] for m in answers] == list(range(500))
        guild.remove_agent(name)


def test_the_limit_is_refused_by_name(engine: MultiProcessExecutionEngine) -> None:
    """One agent too many is refused with the words of the specification; then there is room."""
    with Guild("g", engine, NO_MESSAGES) as guild:
        for name in "ab":
            guild.launch_agent(spec_of(MultiplyingAgent, name))
        with pytest.raises(ProcessLimitError, match=r"Maximum number of processes \(2\)") as caught:
            guild.launch_agent(spec_of(MultiplyingAgent, "c"))
        assert isinstance(caught.value, RuntimeError)
        assert guild.get_agent_count() == 2
        guild.remove_agent("a")
        guild.launch_agent(spec_of(MultiplyingAgent, "c"))
        assert engine.get_engine_stats()["owned_agents_count"] == 2


def test_the_limit_holds_under_concurrent_launches(engine: MultiProcessExecutionEngine) -> None:
    """Of six launches at once in an engine for two, exactly two succeed."""
    outcomes: list[str] = []
    with Guild("g", engine, NO_MESSAGES) as guild:

        def launch(n: int) -> None:
            try:
                guild.launch_agent(spec_of(MultiplyingAgent, f"m{n}"))
                outcomes.append("ready")
            except ProcessLimitError:
                outcomes.append("refused")

        threads = [threading.Thread(target=launch, args=(n,)) for n in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
    assert sorted(outcomes) == ["ready"] * 2 + ["refused"] * 4


def test_max_processes_defaults_to_the_cpus() -> None:
    """The default limit is the number of CPUs; less than one is refused."""
    with MultiProcessExecutionEngine(guild_id="my-guild") as engine:
        assert engine.get_engine_stats()["max_processes"] == multiprocessing.cpu_count()
    with pytest.raises(ValueError, match="at least 1"):
        MultiProcessExecutionEngine("g", max_processes=0)


def test_agents_see_the_moment_of_launch(
    guild: Guild, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Environment and directory are those of the launch; the agent leads its own session."""
    guild.launch_agent(spec_of(WhereAgent, "before"))  # there is a nursery now
    guild.remove_agent("before")
    monkeypatch.setenv("TEST_VARIABLE", "now")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    guild.launch_agent(spec_of(WhereAgent, "w"))
    told = guild.request({}).payload
    assert told["variable"] == "now"
    assert told["cwd"] == told["temporary"] == str(tmp_path)
    assert told["leads_session"]
    assert told["threads"] == 2  # the one that runs handlers, and the one that obeys the engine


def test_unpicklable_values_are_refused_with_their_path(
    engine: MultiProcessExecutionEngine,
) -> None:
    """A value that cannot travel is refused before any process starts, naming the very part."""

    class Pool:
        """Holds a lock, two levels down."""

        def __init__(self) -> None:
            self.parts = [{"guard": threading.Lock()}]

    builder = AgentBuilder(MultiplyingAgent).set_name("m").add_dependency("db", {"pool": Pool()})
    before = len(psutil.Process().children())
    with Guild("g", engine, NO_MESSAGES) as guild:
        with pytest.raises(NotPicklableError) as caught:
            guild.launch_agent(builder.build_spec())
        assert guild.get_agent_count() == 0
        assert len(psutil.Process().children()) == before
    path = 'dependencies["db"]["pool"].parts[0]["guard"] is a _thread.lock'
    assert path in str(caught.value)
    assert "DependencyResolver" in caught.value.hint


def test_classes_of_a_script_work_in_its_agents(free_port: int) -> None:
    """Agents, models and values of `__main__` are found in the agents' processes."""
    assert run_program("main_classes.py", free_port).strip() == "7"


def test_a_script_without_its_guard_is_told_so(free_port: int) -> None:
    """A script that starts agents when it is imported fails once, instead of starting for ever."""
    with start_program("unguarded.py", free_port) as program:
        _, err = program.communicate(timeout=40)
    assert program.returncode == 1
    assert 'hint: put what starts agents behind: if __name__ == "__main__":' in err
    assert err.count("AgentStartError") == 1


def test_a_class_of_an_interactive_session_is_refused(free_port: int) -> None:
    """A class that was typed in, which no file holds, is refused with what to do."""
    code = (PROGRAMS / "main_classes.py").read_text().replace("int(sys.argv[1])", str(free_port))
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=40, check=False
    )
    assert done.returncode == 1
    assert "hint: put the class into a module" in done.stderr


def test_the_start_method_becomes_spawn(engine: MultiProcessExecutionEngine) -> None:
    """Once an engine exists, the program's own processes are spawned, not forked."""
    assert engine is not None
    assert multiprocessing.get_start_method() == "spawn"


def test_ctrl_c_at_the_terminal_does_not_reach_agents(guild: Guild) -> None:
    """An agent ignores SIGINT: the program decides what Ctrl-C means."""
    guild.launch_agent(spec_of(MultiplyingAgent, "m"))
    os.kill(guild.get_process_info("m")["pid"], signal.SIGINT)
    assert guild.request(Number(value=3)).payload["value"] == 6


def test_the_tracker_and_the_wrapper(engine: MultiProcessExecutionEngine) -> None:
    """Tracker and wrapper have the methods of the specification, and they agree."""
    with Guild("g", engine, NO_MESSAGES) as guild:
        spec = spec_of(MultiplyingAgent, "m")
        guild.launch_agent(spec)
        tracker: MultiProcessAgentTracker = engine.tracker
        wrapper = tracker.get_agent_wrapper("g", "m")
        assert isinstance(wrapper, MultiProcessAgentWrapper)
        assert tracker.get_agent_spec("g", "m") == spec
        assert wrapper.is_alive()
        assert tracker.is_agent_alive("g", "m")
        tracker.update_process_info("g", "m")
        assert tracker.get_process_info("g", "m")["pid"] == wrapper.get_process_id()
        stats: dict[str, Any] = tracker.get_stats()
        assert (stats["total_agents"], stats["alive_agents"]) == (1, 1)

        other = MultiProcessAgentTracker()
        other.add_agent("g", spec, wrapper)
        assert other.get_agents_in_guild("g") == {"m": spec}
        other.remove_agent("g", "m")
        other.remove_agent("g", "m")
        assert other.get_agent_spec("g", "m") is None
        other.add_agent("g", spec, wrapper)
        other.clear()
        assert other.get_stats()["total_agents"] == 0

        wrapper.shutdown()
        assert not wrapper.is_alive()
        assert wrapper.exit_report is not None
        assert wrapper.exit_report.exitcode == 0
        wait_until(lambda: not tracker.is_agent_alive("g", "m"))
