"""What follows a death: restarts, strategies, giving up."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from rustic_ai.core.errors import AgentStartError, GuildFailedError, ProcessLimitError
from rustic_ai.core.guild import AgentBuilder, Guild, GuildBuilder
from rustic_ai.core.guild.execution import MultiProcessExecutionEngine
from rustic_ai.core.guild.execution.stats import AgentEvent
from rustic_ai.core.guild.supervision import RestartPolicy
from rustic_ai.core.guild.topics import GuildTopics
from rustic_ai.core.testing.agents import DependentAgent, Number, RaisingAgent
from rustic_ai.core.testing.waiting import wait_until
from tests.misbehaving import ObedientAgent, StartsOnceAgent
from tests.support import NO_MESSAGES, embedded, spec_of

AT_ONCE = {"restart": "permanent", "backoff": 0, "jitter": 0, "intensity": 100}
NEVER_BACK = {"restart": "permanent", "backoff": 600, "backoff_max": 600}


@contextmanager
def running(
    names: str, messaging: Any = NO_MESSAGES, **settings: Any
) -> Iterator[tuple[MultiProcessExecutionEngine, Guild]]:
    """Run one obedient agent per letter."""
    with (
        MultiProcessExecutionEngine("g", max(len(names), 2), **settings) as engine,
        Guild("g", engine, messaging) as guild,
    ):
        guild.launch_agents([spec_of(ObedientAgent, name) for name in names])
        yield engine, guild


def pid_of(engine: MultiProcessExecutionEngine, name: str) -> int:
    pid = engine.get_process_info("g", name)["pid"]
    assert isinstance(pid, int)
    return pid


def status_of(engine: MultiProcessExecutionEngine, name: str) -> str:
    return str(engine.get_process_info("g", name)["status"])


def kill(engine: MultiProcessExecutionEngine, name: str) -> None:
    os.kill(pid_of(engine, name), signal.SIGKILL)


def has_generation(
    engine: MultiProcessExecutionEngine, name: str, generation: int
) -> Callable[[], bool]:
    def is_so() -> bool:
        info = engine.get_process_info("g", name)
        return (info["status"], info["generation"]) == ("RUNNING", generation)

    return is_so


def ask(guild: Guild, name: str, what: str) -> Any:
    answer = guild.request({"do": what}, GuildTopics.get_agent_inbox(name), timeout=20)
    return answer.payload["result"]


def test_a_killed_agent_is_back_as_it_was(free_port: int) -> None:
    """It keeps id, name, subscriptions and dependencies; only the process is another."""
    with (
        MultiProcessExecutionEngine("g", restart_policy=AT_ONCE) as engine,
        Guild("g", engine, embedded(free_port), dependency_map={"offset": 100}) as guild,
    ):
        builder = AgentBuilder(DependentAgent).set_id("d").set_name("dep")
        guild.launch_agent(builder.add_additional_topic("extra").build_spec())
        first = guild.request(Number(value=1), "extra", timeout=20).payload
        kill(engine, "d")
        wait_until(has_generation(engine, "d", 2))
        second = guild.request(Number(value=1), "extra", timeout=20).payload
        assert (second["value"], second["agent"]) == (101, "dep")
        assert second["pid"] != first["pid"]
        info = engine.get_process_info("g", "d")
        assert (info["pid"], info["restarts"]) == (second["pid"], 1)
        assert engine.get_engine_stats()["restarts"] == 1


def test_by_default_whoever_watches_decides() -> None:
    """The engine's own policy is 'temporary': a dead agent stays listed, dead."""
    with running("a") as (engine, _):
        kill(engine, "a")
        wait_until(lambda: status_of(engine, "a") == "EXITED")
        assert list(engine.get_agents_in_guild("g")) == ["a"]
        assert engine.get_engine_stats()["states"] == {"EXITED": 1}


@pytest.mark.parametrize(("restart", "status"), [("transient", "EXITED"), ("permanent", "RUNNING")])
def test_a_normal_exit(free_port: int, restart: str, status: str) -> None:
    """Exit code 0 ends a transient agent for good, and a permanent one for a moment."""
    policy = {**AT_ONCE, "restart": restart}
    with running("a", embedded(free_port), restart_policy=policy) as (engine, guild):
        guild.publish({"do": "exit_normally"}, GuildTopics.get_agent_inbox("a"))
        wait_until(lambda: engine.get_exit_report("g", "a"))
        wait_until(lambda: status_of(engine, "a") == status)


def test_too_many_deaths_are_fatal(free_port: int) -> None:
    """After `intensity` restarts the agent stays down, and only then is the guild told."""
    policy = {**AT_ONCE, "intensity": 2}
    with running("a", embedded(free_port), restart_policy=policy) as (engine, guild):
        for generation in (1, 2, 3):
            wait_until(has_generation(engine, "a", generation))
            kill(engine, "a")
        with pytest.raises(GuildFailedError, match="too many restarts, given up"):
            guild.wait(timeout=20)
        assert status_of(engine, "a") == "FATAL"
        report = engine.get_exit_report("g", "a")
        assert report is not None
        assert report.gave_up
        assert report.generation == 3
        guild.remove_agent("a")
        guild.launch_agent(spec_of(ObedientAgent, "a"))
        assert ask(guild, "a", "tell")["pid"] == pid_of(engine, "a")


def test_a_quarantined_agent_gets_another_try() -> None:
    """With `quarantine`, FATAL is not the end."""
    policy = {**AT_ONCE, "intensity": 0, "quarantine": 0.05}
    with running("a", restart_policy=policy) as (engine, _):
        kill(engine, "a")
        wait_until(has_generation(engine, "a", 2))
        report = engine.get_exit_report("g", "a")
        assert report is not None
        assert report.gave_up


def test_a_quarantined_agent_can_be_launched_anew() -> None:
    """A launch by hand takes the place of the one that would have come."""
    policy = {**AT_ONCE, "intensity": 0, "quarantine": 600}
    with running("a", restart_policy=policy) as (engine, guild):
        kill(engine, "a")
        wait_until(lambda: status_of(engine, "a") == "FATAL")
        guild.launch_agent(spec_of(ObedientAgent, "a"))
        assert has_generation(engine, "a", 1)()


def test_escalation_ends_all() -> None:
    """An agent that gives up and escalates takes the others of its engine down, in good order."""
    policy = {**AT_ONCE, "intensity": 0, "on_give_up": "escalate"}
    with running("abc", restart_policy=policy) as (engine, _):
        kill(engine, "b")
        wait_until(lambda: engine.get_engine_stats()["states"] == {"FATAL": 1, "STOPPED": 2})


@pytest.mark.parametrize(
    ("strategy", "replaced"),
    [("one_for_one", "b"), ("one_for_all", "abcd"), ("rest_for_one", "bcd")],
)
def test_strategies(strategy: str, replaced: str) -> None:
    """The death of one has those started again whom the strategy names, and nobody else."""
    with running("abcd", restart_policy=AT_ONCE, strategy=strategy) as (engine, _):
        before = {name: pid_of(engine, name) for name in "abcd"}
        kill(engine, "b")
        for name in replaced:
            wait_until(has_generation(engine, name, 2))
        after = {name: pid_of(engine, name) for name in "abcd"}
        assert {name for name in "abcd" if after[name] != before[name]} == set(replaced)
        assert engine.get_engine_stats()["states"] == {"RUNNING": 4}


def test_a_temporary_agent_is_started_again_with_others() -> None:
    """Its own death has no consequence; in a common restart it is an agent as any."""
    restarted = spec_of(ObedientAgent, "a").model_copy(
        update={"restart_policy": RestartPolicy.of(AT_ONCE)}
    )
    with (
        MultiProcessExecutionEngine("g", 2, strategy="one_for_all") as engine,
        Guild("g", engine, NO_MESSAGES) as guild,
    ):
        guild.launch_agents([restarted, spec_of(ObedientAgent, "b")])
        for generation in (2, 3):
            kill(engine, "a")
            for name in "ab":
                wait_until(has_generation(engine, name, generation))
        kill(engine, "b")
        wait_until(lambda: engine.get_engine_stats()["states"] == {"RUNNING": 1, "EXITED": 1})


def test_a_stop_in_the_middle_of_a_common_restart() -> None:
    """Who is stopped by hand meanwhile stays stopped; the others come back."""
    policy = {**AT_ONCE, "backoff": 0.3}
    with running("abc", restart_policy=policy, strategy="one_for_all") as (engine, _):
        kill(engine, "a")
        wait_until(lambda: status_of(engine, "a") == "BACKOFF")
        engine.stop_agent("g", "b")
        wait_until(has_generation(engine, "a", 2))
        wait_until(has_generation(engine, "c", 2))
        assert list(engine.get_agents_in_guild("g")) == ["a", "c"]


def test_an_agent_that_waits_for_its_restart_can_be_stopped() -> None:
    """A stop in BACKOFF cancels the restart and returns at once; so does a shutdown."""
    with running("ab", restart_policy=NEVER_BACK) as (engine, _):
        for name in "ab":
            kill(engine, name)
        wait_until(lambda: engine.get_engine_stats()["states"] == {"BACKOFF": 2})
        engine.stop_agent("g", "a")
        assert list(engine.get_agents_in_guild("g")) == ["b"]
        assert not engine.get_process_info("g", "b")["is_alive"]


def test_the_limit_counts_agents_that_will_be_back() -> None:
    """An agent in BACKOFF keeps its place."""
    with running("ab", restart_policy=NEVER_BACK) as (engine, guild):
        kill(engine, "a")
        wait_until(lambda: status_of(engine, "a") == "BACKOFF")
        with pytest.raises(ProcessLimitError):
            guild.launch_agent(spec_of(ObedientAgent, "c"))
        engine.stop_agent("g", "a")
        guild.launch_agent(spec_of(ObedientAgent, "c"))


def test_events_tell_the_whole_story() -> None:
    """Listeners hear every state, with its generation, and the report of each end."""
    heard: list[AgentEvent] = []
    with MultiProcessExecutionEngine("g", restart_policy=AT_ONCE) as engine:
        engine.add_event_listener(heard.append)
        with Guild("g", engine, NO_MESSAGES) as guild:
            guild.launch_agent(spec_of(ObedientAgent, "a"))
            kill(engine, "a")
            wait_until(has_generation(engine, "a", 2))
    assert [(str(e.state), e.generation) for e in heard] == [
        ("STARTING", 1),
        ("RUNNING", 1),
        ("BACKOFF", 1),
        ("STARTING", 2),
        ("RUNNING", 2),
        ("STOPPING", 2),
        ("STOPPED", 2),
    ]
    reports = [e.report for e in heard if e.report is not None]
    assert [(r.signal, r.restart_in, r.requested) for r in reports] == [
        ("SIGKILL", 0.0, False),
        ("", None, True),
    ]


def test_a_listener_may_take_its_time_and_fail() -> None:
    """Neither a slow nor a failing listener keeps agents from being looked after."""
    free = threading.Event()

    def listen(event: AgentEvent) -> None:
        free.wait(20)
        raise LookupError(event.agent_id)

    with MultiProcessExecutionEngine("g", restart_policy=AT_ONCE) as engine:
        engine.add_event_listener(listen)
        with Guild("g", engine, NO_MESSAGES) as guild:
            guild.launch_agent(spec_of(ObedientAgent, "a"))
            kill(engine, "a")
            wait_until(has_generation(engine, "a", 2))
            free.set()


def test_a_restart_that_fails_counts(tmp_path: Path) -> None:
    """An agent that cannot start again is tried as often as its policy says, then FATAL."""
    policy = {**AT_ONCE, "intensity": 2}
    with (
        MultiProcessExecutionEngine("g", restart_policy=policy) as engine,
        Guild("g", engine, NO_MESSAGES) as guild,
    ):
        guild.launch_agent(spec_of(StartsOnceAgent, "s", path=str(tmp_path / "flag")))
        kill(engine, "s")
        wait_until(lambda: status_of(engine, "s") == "FATAL")
        report = engine.get_exit_report("g", "s")
        assert report is not None
        assert report.generation == 3
        assert "FileExistsError" in report.reason
        assert "in __init__" in report.traceback


def test_a_first_start_that_fails_is_raised_not_retried() -> None:
    """However permanent: the caller is told, nothing is listed and nothing tried again."""
    heard: list[AgentEvent] = []
    with MultiProcessExecutionEngine("g", restart_policy=AT_ONCE) as engine:
        engine.add_event_listener(heard.append)
        with Guild("g", engine, NO_MESSAGES) as guild:
            with pytest.raises(AgentStartError, match="no such table"):
                guild.launch_agent(spec_of(RaisingAgent, "r"))
            assert engine.get_agents_in_guild("g") == {}
    assert [str(event.state) for event in heard] == ["STARTING", "EXITED"]


def test_policies_of_a_guild_file(tmp_path: Path) -> None:
    """Guild and agent say it in the words of the file; the agent's own goes first."""
    file = tmp_path / "guild.yaml"
    file.write_text(
        f"""
        id: g
        properties:
          restart_policy: {{restart: permanent, backoff: 0, jitter: 0}}
          strategy: one_for_one
          limits: {{oom_score_adj: 700}}
          messaging: {{backend_module: {NO_MESSAGES["backend_module"]},
                       backend_class: {NO_MESSAGES["backend_class"]}}}
        agents:
          - {{id: a, name: a, class_name: tests.misbehaving.ObedientAgent}}
          - {{id: b, name: b, class_name: tests.misbehaving.ObedientAgent,
             restart_policy: temporary}}
        """
    )
    with GuildBuilder.from_yaml_file(file).launch() as guild:
        for name in "ab":
            pid = guild.get_process_info(name)["pid"]
            assert Path(f"/proc/{pid}/oom_score_adj").read_text() == "700\n"
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: guild.get_process_info("a")["generation"] == 2)
        wait_until(lambda: guild.get_process_info("b")["status"] == "EXITED")
