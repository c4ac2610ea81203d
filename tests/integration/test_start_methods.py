"""How agents start: forked from the nursery, or fresh; and what becomes of them without it."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from rustic_ai.core.errors import AgentStartError, ProcessLimitError
from rustic_ai.core.guild import Guild
from rustic_ai.core.guild.execution import MultiProcessExecutionEngine
from rustic_ai.core.guild.execution.multiprocess import MultiProcessAgentTracker
from rustic_ai.core.guild.topics import GuildTopics
from rustic_ai.core.testing.agents import HangingAgent, RaisingAgent
from rustic_ai.core.testing.waiting import wait_until
from tests.misbehaving import ObedientAgent
from tests.support import NO_MESSAGES, embedded, run_program, spec_of


@contextmanager
def guild_for(
    messaging: Any, limit: int = 8, name: str = "g", **settings: Any
) -> Iterator[tuple[MultiProcessExecutionEngine, Guild]]:
    with (
        MultiProcessExecutionEngine(name, limit, **settings) as engine,
        Guild(name, engine, messaging) as guild,
    ):
        yield engine, guild


def ask(guild: Guild, name: str, what: str = "tell") -> Any:
    answer = guild.request({"do": what}, GuildTopics.get_agent_inbox(name), timeout=20)
    return answer.payload["result"]


def nursery() -> psutil.Process:
    """Return the nursery of the only engine of this program."""
    (found,) = [
        child
        for child in psutil.Process().children()
        if any(part.startswith("rustic-nursery:") for part in child.cmdline())
    ]
    return found


def specs(count: int) -> list[Any]:
    return [spec_of(ObedientAgent, f"a{n}") for n in range(count)]


def test_forked_agents_have_nothing_of_each_other(free_port: int) -> None:
    """Two agents of one nursery draw different random numbers; they are its children."""
    with guild_for(embedded(free_port), start_method="forkserver") as (_, guild):
        guild.launch_agents(specs(2))
        first, second = ask(guild, "a0"), ask(guild, "a1")
    assert first["random"] != second["random"]
    assert first["hash"] == second["hash"]
    assert "rustic-nursery:g" in first["parent"]


def test_forked_agents_draw_numbers_of_their_own_from_numpy(free_port: int) -> None:
    """Numpy's global generator does not see a fork: each agent seeds it anew."""
    settings = {"start_method": "forkserver", "preload": ["numpy.random"]}
    with guild_for(embedded(free_port), **settings) as (_, guild):
        guild.launch_agents(specs(2))
        assert ask(guild, "a0", "numpy") != ask(guild, "a1", "numpy")


def test_spawned_agents_are_fresh_interpreters(free_port: int) -> None:
    """With 'spawn' even the seed of hashes is an agent's own."""
    with guild_for(embedded(free_port), start_method="spawn") as (_, guild):
        guild.launch_agents(specs(2))
        assert ask(guild, "a0")["hash"] != ask(guild, "a1")["hash"]


def test_variables_of_the_interpreter_get_a_fresh_one(
    free_port: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A variable that is read only at an interpreter's start works, and the log says how."""
    with guild_for(embedded(free_port)) as (_, guild):
        monkeypatch.setenv("PYTHONHASHSEED", "0")
        guild.launch_agents(specs(2))
        told = [ask(guild, name) for name in ("a0", "a1")]
    assert told[0]["hash"] == told[1]["hash"]
    assert told[0]["seed"] == "0"
    assert "gets a fresh interpreter, since PYTHONHASHSEED changed" in caplog.text


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], str]:
    """Write a module that can be imported in other processes."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(name: str, text: str) -> str:
        (tmp_path / f"{name}.py").write_text(text)
        return name

    return write


def test_preloaded_modules_are_imported_once(
    free_port: int, module: Callable[[str, str], str], tmp_path: Path
) -> None:
    """What `preload` names is imported in the nursery, not in the agents."""
    text = f"import os\nopen({str(tmp_path / 'log')!r}, 'a').write(str(os.getpid()) + ' ')\n"
    name = module("preloaded_by_test", text)
    with guild_for(embedded(free_port), preload=[name]) as (_, guild):
        guild.launch_agents(specs(3))
        pid = nursery().pid
    assert (tmp_path / "log").read_text().split() == [str(pid)]


def test_threads_of_a_preloaded_module_forbid_forks(
    free_port: int, module: Callable[[str, str], str], caplog: pytest.LogCaptureFixture
) -> None:
    """A nursery with threads forks no more: agents get fresh interpreters, and the log why."""
    name = module(
        "threaded_by_test",
        "import threading\n"
        "threading.Thread(target=threading.Event().wait, name='busybody', daemon=True).start()\n",
    )
    with guild_for(embedded(free_port), preload=[name]) as (_, guild):
        guild.launch_agents(specs(2))
        assert ask(guild, "a0")["hash"] != ask(guild, "a1")["hash"]
    assert "preloaded modules left threads running: busybody" in caplog.text


def test_a_preload_that_fails_is_told_and_does_no_harm(
    free_port: int, module: Callable[[str, str], str], caplog: pytest.LogCaptureFixture
) -> None:
    """Agents start all the same."""
    name = module("failing_by_test", "raise LookupError('no such thing')\n")
    with guild_for(embedded(free_port), preload=[name]) as (_, guild):
        guild.launch_agents(specs(1))
        assert ask(guild, "a0")["pid"]
    assert "preload failed" in caplog.text
    assert "LookupError: no such thing" in caplog.text


def test_a_preload_that_ends_the_nursery_is_told(module: Callable[[str, str], str]) -> None:
    """A module that leaves the process fails the start with that reason, not with a hang."""
    name = module("leaving_by_test", "import os\nos._exit(3)\n")
    with (
        guild_for(NO_MESSAGES, preload=[name]) as (_, guild),
        pytest.raises(AgentStartError, match="the nursery ended before it was ready"),
    ):
        guild.launch_agents(specs(1))


def test_agents_outlive_their_nursery(free_port: int) -> None:
    """When the nursery is killed, agents go on, a new one adopts them, and launches work."""
    with guild_for(embedded(free_port)) as (engine, guild):
        guild.launch_agents(specs(2))
        before = ask(guild, "a0")
        old = nursery()
        old.kill()
        wait_until(lambda: not psutil.pid_exists(old.pid))
        guild.launch_agent(spec_of(ObedientAgent, "late"))
        assert nursery().pid != old.pid
        assert ask(guild, "a0")["pid"] == before["pid"]
        assert ask(guild, "late")["pid"]
        for number, name in ((signal.SIGKILL, "a0"), (signal.SIGSEGV, "a1")):
            os.kill(engine.get_process_info("g", name)["pid"], number)
            wait_until(lambda n=name: engine.get_exit_report("g", n))  # type: ignore[misc]
            report = engine.get_exit_report("g", name)
            assert report is not None
            assert report.exitcode == -number


def test_a_nursery_that_is_killed_while_agents_start() -> None:
    """What it was starting is started by the next one; nobody is told of a failure."""
    with guild_for(NO_MESSAGES, 20) as (engine, guild):
        guild.launch_agent(spec_of(ObedientAgent, "first"))
        old = nursery()
        os.kill(old.pid, signal.SIGSTOP)  # so that it certainly is in the middle of them
        launch = threading.Thread(target=guild.launch_agents, args=(specs(10),))
        launch.start()
        wait_until(lambda: engine.get_engine_stats()["states"].get("STARTING") == 10)
        old.kill()
        launch.join(20)
        assert engine.get_engine_stats()["states"] == {"RUNNING": 11}


def test_hundreds_at_once(free_port: int) -> None:
    """300 agents started at the same time are all ready, and all stop."""
    with guild_for(NO_MESSAGES, 300, preload=["tests.misbehaving"]) as (engine, guild):
        guild.launch_agents(specs(300))
        assert engine.get_engine_stats()["alive_agents"] == 300
        with pytest.raises(ProcessLimitError, match=r"\(300\)"):
            guild.launch_agent(spec_of(ObedientAgent, "one_more"))


def test_some_of_many_fail() -> None:
    """Those that do not start are raised together; the others go on."""
    with guild_for(NO_MESSAGES) as (engine, guild):
        bad = [spec_of(RaisingAgent, f"r{n}") for n in range(2)]
        with pytest.raises(ExceptionGroup, match="2 agents did not start") as caught:
            guild.launch_agents([*specs(2), *bad])
        assert [type(e) for e in caught.value.exceptions] == [AgentStartError] * 2
        assert list(engine.get_agents_in_guild("g")) == ["a0", "a1"]
        assert [agent.id for agent in guild.list_agents()] == ["a0", "a1"]


def test_too_many_at_once_start_nothing() -> None:
    """A list that does not fit under the limit is refused as a whole."""
    with guild_for(NO_MESSAGES, 2) as (engine, guild):
        with pytest.raises(ProcessLimitError):
            guild.launch_agents(specs(3))
        assert engine.get_agents_in_guild("g") == {}


def test_a_shutdown_while_many_start() -> None:
    """Agents that hang in their start, and those in the queue behind them, end at the deadline."""
    with MultiProcessExecutionEngine("g", 20) as engine:
        guild = Guild("g", engine, NO_MESSAGES)
        mixed = [spec_of(HangingAgent, f"h{n}") for n in range(10)] + specs(10)
        failed: list[BaseException] = []

        def launch() -> None:
            try:
                guild.launch_agents(mixed)
            except ExceptionGroup as e:
                failed.extend(e.exceptions)

        thread = threading.Thread(target=launch)
        thread.start()
        wait_until(lambda: engine.get_engine_stats()["states"].get("RUNNING") == 10)
        guild.shutdown(timeout=0.2)
        thread.join(20)
        assert len(failed) == 10


def test_a_limit_of_open_files_is_named() -> None:
    """Where the descriptors end, the error says which limit it was, and what runs goes on."""
    assert "RLIMIT_NOFILE" in run_program("few_files.py")


def test_any_process_can_look_at_a_guild(free_port: int) -> None:
    """By its name alone, read-only, another program sees state, load and heartbeat."""
    name = f"seen-{os.getpid()}"  # nobody else on this machine has a guild of that name
    with guild_for(embedded(free_port), name=name) as (engine, guild):
        guild.launch_agents(specs(2))
        ask(guild, "a0")
        pid = engine.get_process_info(name, "a0")["pid"]
        seen = eval(run_program("look.py", name))
        assert list(seen["agents"]) == ["a0", "a1"]
        info = seen["agents"]["a0"]
        assert (info["pid"], info["status"], info["is_alive"]) == (pid, "RUNNING", True)
        assert info["handled"] >= 1
        assert info["heartbeat_age"] < 10
        assert seen["stats"]["states"] == {"RUNNING": 2}
        assert seen["engine_pid"] == os.getpid()
        nursery().kill()
        with MultiProcessAgentTracker.attach(name) as tracker:
            spec = tracker.get_agent_spec(name, "a1")
            assert spec == spec_of(ObedientAgent, "a1")
            assert tracker.get_process_info(name, "nobody") == {}
            os.kill(engine.get_process_info(name, "a1")["pid"], signal.SIGKILL)
            wait_until(lambda: not tracker.is_agent_alive(name, "a1"))


def test_looking_at_a_guild_that_is_not_there() -> None:
    """The error names the guild."""
    with pytest.raises(RuntimeError, match="no guild 'nowhere' of this user runs"):
        MultiProcessAgentTracker.attach("nowhere")


def test_wrong_arguments_are_refused() -> None:
    """Words that nobody knows are refused where they are given, and nothing is left."""
    for wrong in ({"start_method": "fork"}, {"strategy": "all"}, {"restart_policy": "always"}):
        with pytest.raises(ValueError, match=next(iter(wrong.values()))):
            MultiProcessExecutionEngine("g", **wrong)  # type: ignore[arg-type]


def test_a_fork_after_shutdown_keeps_its_files() -> None:
    """Descriptors of an engine that was shut down may be others' by then: a fork leaves them be."""
    with guild_for(NO_MESSAGES) as (_, guild):
        guild.launch_agents(specs(1))
    files = [fd for _ in range(10) for fd in os.pipe()]
    if (pid := os.fork()) == 0:
        try:
            for fd in files:
                os.fstat(fd)
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    for fd in files:
        os.close(fd)


def test_an_engine_that_is_let_go_of_ends_its_nursery(caplog: pytest.LogCaptureFixture) -> None:
    """An engine without agents needs no shutdown."""
    engine = MultiProcessExecutionEngine("g")
    pid = nursery().pid
    with caplog.at_level(logging.WARNING):
        del engine
        wait_until(lambda: not psutil.pid_exists(pid))
    assert caplog.text == ""
