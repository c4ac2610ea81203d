"""Faults of the engine that this one takes the place of, each turned into a promise."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from rustic_ai.core.errors import AgentStartError, DuplicateAgentError, ProcessLimitError
from rustic_ai.core.guild import Agent, AgentBuilder, Guild, ProcessContext
from rustic_ai.core.guild.agent import JsonDict, processor
from rustic_ai.core.guild.execution import MultiProcessExecutionEngine
from rustic_ai.core.guild.topics import GuildTopics
from rustic_ai.core.messaging.backend.embedded_backend import EmbeddedMessagingBackend
from rustic_ai.core.testing.agents import HangingAgent, LifecycleAgent, MultiplyingAgent, Number
from rustic_ai.core.testing.leaks import LeakCheck
from rustic_ai.core.testing.waiting import wait_until
from tests.support import NO_MESSAGES, embedded, is_running, run_program, spec_of

OWN_CHILDREN = """
import multiprocessing, subprocess, sys, time
from rustic_ai.core.guild import Guild
from rustic_ai.core.guild.execution import MultiProcessExecutionEngine
from rustic_ai.core.testing.agents import MultiplyingAgent
from tests.support import NO_MESSAGES, spec_of

worker = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(600,))
worker.start()
other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
with Guild("g", MultiProcessExecutionEngine("g"), NO_MESSAGES) as guild:
    guild.launch_agent(spec_of(MultiplyingAgent, "m"))
print(multiprocessing.active_children() == [worker] and worker.is_alive(), other.poll())
worker.terminate()
worker.join()
other.communicate(b"x\\n")
"""
"""A program with a process of either kind beside its agents."""


class DeadlyToLoad:
    """Travels well, and ends the process that unpickles it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os._exit, (9,)


class StubbornAgent(Agent):
    """Ignores SIGTERM, has a child that does so too, and hangs in its handler."""

    @processor(JsonDict)
    def hang(self, ctx: ProcessContext[JsonDict]) -> None:
        """Tell the pid of the child, and never return."""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        ctx.send_dict({"child": child.pid}, now=True)
        threading.Event().wait()


@pytest.fixture
def engine() -> Iterator[MultiProcessExecutionEngine]:
    with MultiProcessExecutionEngine("g", max_processes=8) as engine:
        yield engine


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_a_death_before_the_agent_exists_is_told_at_once(method: Any) -> None:
    """A child that dies while it unpickles its agent is a failed start, long before the limit."""
    spec = AgentBuilder(MultiplyingAgent).set_name("m").add_dependency("x", DeadlyToLoad())
    with (
        MultiProcessExecutionEngine("g", start_timeout=600, start_method=method) as engine,
        Guild("g", engine, NO_MESSAGES) as guild,
    ):
        with pytest.raises(AgentStartError, match="exit code 9") as caught:
            guild.launch_agent(spec.build_spec())
        assert caught.value.exitcode == 9
        assert engine.get_agents_in_guild("g") == {}


def test_children_of_the_program_are_its_own() -> None:
    """A shutdown ends agents, and no process that the program started itself."""
    command = [sys.executable, "-c", OWN_CHILDREN]
    paths = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=40, check=False, env=os.environ | paths
    )
    assert (done.stdout.split(), done.stderr) == (["True", "None"], "")


def test_another_process_can_list_agents_without_losing_them() -> None:
    """Whoever looks from outside changes nothing: agents are listed and run as before."""
    name = f"listed-{os.getpid()}"  # nobody else on this machine has a guild of that name
    with (
        MultiProcessExecutionEngine(name, max_processes=2) as engine,
        Guild(name, engine, NO_MESSAGES) as guild,
    ):
        guild.launch_agents([spec_of(MultiplyingAgent, agent) for agent in "ab"])
        before = engine.get_engine_stats()
        seen = [eval(run_program("look.py", name)) for _ in range(2)]
        assert [list(look["agents"]) for look in seen] == [["a", "b"]] * 2
        assert engine.get_engine_stats() == before
        assert before["alive_agents"] == 2


def test_listing_has_no_effects(engine: MultiProcessExecutionEngine) -> None:
    """A dead agent stays to be seen however often one looks; the numbers agree with the list."""
    with Guild("g", engine, NO_MESSAGES) as guild:
        specs = [spec_of(MultiplyingAgent, name) for name in "ab"]
        guild.launch_agents(specs)
        os.kill(guild.get_process_info("a")["pid"], signal.SIGKILL)
        wait_until(lambda: not engine.is_agent_running("g", "a"))
        for _ in range(3):
            assert list(engine.get_agents_in_guild("g")) == ["a", "b"]
            stats = engine.get_engine_stats()
            counts = ("total_agents", "alive_agents", "owned_agents_count", "active_processes")
            assert [stats[name] for name in counts] == [2, 1, 1, 1]
            assert engine.cleanup_dead_processes() == [specs[0]]


def left_by_an_interrupted_start(engine: MultiProcessExecutionEngine) -> list[object]:
    """Interrupt a start that never ends as soon as there is a process; return what is left."""
    pids: list[int] = []

    def interrupt() -> None:
        pids.append(wait_until(lambda: engine.get_process_info("g", "h").get("pid") or 0))
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    interrupter = threading.Thread(target=interrupt)
    with Guild("g", engine, NO_MESSAGES) as guild:
        interrupter.start()
        with pytest.raises(KeyboardInterrupt):
            guild.launch_agent(spec_of(HangingAgent, "h"))
        interrupter.join()
        return [*filter(is_running, pids), *engine.get_agents_in_guild("g")]


def test_an_interrupted_start_leaves_no_process(engine: MultiProcessExecutionEngine) -> None:
    """Ctrl-C while a start is waited for ends what was started, and takes it off the list."""
    assert left_by_an_interrupted_start(engine) == []


def test_a_process_that_was_just_forked_can_be_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before it has made a group of its own, which it never does here, it gets the signal alone."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "groupless_by_test.py").write_text(
        "import os, signal\nos.setsid = lambda: [signal.pause() for _ in iter(int, 1)]\n"
    )
    with MultiProcessExecutionEngine("g", preload=["groupless_by_test"]) as engine:
        assert left_by_an_interrupted_start(engine) == []


def test_a_second_start_does_not_lose_the_first(engine: MultiProcessExecutionEngine) -> None:
    """The id of an agent that runs is refused, and its process goes on."""
    with Guild("g", engine, NO_MESSAGES) as guild:
        guild.launch_agent(spec_of(MultiplyingAgent, "m"))
        pid = guild.get_process_info("m")["pid"]
        with pytest.raises(DuplicateAgentError):
            guild.launch_agent(spec_of(MultiplyingAgent, "m"))
        assert guild.get_process_info("m")["pid"] == pid
        assert engine.get_engine_stats()["active_processes"] == 1


def test_whoever_ignores_sigterm_is_killed_with_its_children(free_port: int) -> None:
    """At the deadline the whole group gets SIGKILL; nothing is forgotten alive."""
    with (
        MultiProcessExecutionEngine("g", stop_timeout=0.2) as engine,
        Guild("g", engine, embedded(free_port)) as guild,
    ):
        guild.launch_agent(spec_of(StubbornAgent, "s"))
        pid = guild.get_process_info("s")["pid"]
        child = guild.request({}, timeout=20).payload["child"]
        guild.remove_agent("s")
        assert not is_running(pid)
        wait_until(lambda: not is_running(child))


def test_a_shutdown_waits_once_for_all(engine: MultiProcessExecutionEngine, free_port: int) -> None:
    """Eight agents that do not stop take the time of one, not eight times that."""
    guild = Guild("g", engine, embedded(free_port))
    guild.launch_agents([spec_of(StubbornAgent, f"s{n}") for n in range(8)])
    guild.publish({})
    wait_until(lambda: all(guild.get_process_info(f"s{n}")["busy_for"] for n in range(8)))
    begin = time.monotonic()
    guild.shutdown(timeout=1)
    assert 1 <= time.monotonic() - begin < 8  # one after another it would be 16


def test_a_stopped_agent_is_no_subscriber(
    engine: MultiProcessExecutionEngine, free_port: int
) -> None:
    """At its end an agent leaves its topics, however it ends."""
    with Guild("g", engine, embedded(free_port)) as guild:
        guild.launch_agents([spec_of(MultiplyingAgent, name) for name in "ab"])
        looking = EmbeddedMessagingBackend(port=free_port, auto_start_server=False)

        def listeners() -> list[str]:
            topics = looking.load_subscribers("g")
            inboxes = {GuildTopics.get_agent_inbox(name): name for name in "ab"}
            return [name for inbox, name in inboxes.items() if topics.get(f"g:{inbox}")]

        try:
            assert listeners() == ["a", "b"]
            guild.remove_agent("a")
            wait_until(lambda: listeners() == ["b"])
            os.kill(guild.get_process_info("b")["pid"], signal.SIGKILL)
            wait_until(lambda: listeners() == [])
        finally:
            looking.cleanup()


def test_two_guilds_may_use_the_same_ids(free_port: int) -> None:
    """An agent is known by guild and id; the limit counts the agents of all guilds."""
    with (
        MultiProcessExecutionEngine("g", max_processes=2) as engine,
        Guild("one", engine, embedded(free_port)) as one,
        Guild("two", engine, embedded(free_port)) as two,
    ):
        one.launch_agent(spec_of(MultiplyingAgent, "m", factor=2))
        two.launch_agent(spec_of(MultiplyingAgent, "m", factor=3))
        assert one.request(Number(value=1), timeout=20).payload["value"] == 2
        with pytest.raises(ProcessLimitError):
            two.launch_agent(spec_of(MultiplyingAgent, "n"))
        one.remove_agent("m")
        assert not engine.is_agent_running("one", "m")
        assert two.request(Number(value=1), timeout=20).payload["value"] == 3


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_sigterm_is_a_request_to_stop(free_port: int, tmp_path: Path, method: Any) -> None:
    """An agent that gets SIGTERM from outside runs its `on_stop`, and ends with exit code 0."""
    path = tmp_path / "life"
    with (
        MultiProcessExecutionEngine("g", start_method=method) as engine,
        Guild("g", engine, embedded(free_port)) as guild,
    ):
        guild.launch_agent(spec_of(LifecycleAgent, "l", path=str(path)))
        os.kill(guild.get_process_info("l")["pid"], signal.SIGTERM)
        wait_until(lambda: not engine.is_agent_running("g", "l"))
        assert engine.get_process_info("g", "l")["exitcode"] == 0
    assert path.read_text().split() == ["start", "stop"]


def test_agents_need_no_named_semaphore(
    engine: MultiProcessExecutionEngine, leak_check: LeakCheck
) -> None:
    """While agents run there is no shared-memory file or semaphore with a name, and no manager."""
    before = leak_check.look()

    def shared() -> list[str]:
        files = leak_check.new_files(before, leak_check.look())
        return [name for name in files if name.startswith("/dev/shm/")]

    with Guild("g", engine, NO_MESSAGES) as guild:
        guild.launch_agents([spec_of(MultiplyingAgent, f"m{n}") for n in range(4)])
        wait_until(lambda: not shared())  # whose it is cannot be seen while it is being made
        lines = [child.cmdline() for child in psutil.Process().children()]
        ours = [line for line in lines if any("rustic" in part for part in line)]
        assert [any(p.startswith("rustic-nursery:") for p in line) for line in ours] == [True]
