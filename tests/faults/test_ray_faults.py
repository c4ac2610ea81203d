"""What is killed, hangs or is lost, on Ray."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import pytest

from rustic_ai.core.errors import (
    AgentStartError,
    DuplicateAgentError,
)
from rustic_ai.core.guild import Guild
from rustic_ai.core.guild.execution.stats import AgentEvent, ExitReport
from rustic_ai.core.guild.spec import AgentSpec
from rustic_ai.core.guild.topics import GuildTopics
from rustic_ai.core.testing import agents
from rustic_ai.core.testing.waiting import wait_until
from rustic_ai.ray import RayExecutionEngine
from rustic_ai.ray.installed import NAMESPACE
from tests.misbehaving import ObedientAgent
from tests.ray_cluster import (
    TestCluster,
    ask,
    config,
    directories,
    engine,
    guild,
    nothing_is_left,
    ray_cluster,
)
from tests.support import spec_of, start_program

__all__ = ["config", "engine", "guild", "nothing_is_left", "ray_cluster"]  # fixtures

pytestmark = pytest.mark.timeout(120)
QUICK = {"backoff": 0.01, "jitter": 0}
TIMEOUT = 40.0


class Seen:
    """What an engine has told."""

    def __init__(self, engine: RayExecutionEngine) -> None:
        self.reports: list[ExitReport] = []
        self.events: list[AgentEvent] = []
        engine.add_exit_listener(self.reports.append)
        engine.add_event_listener(self.events.append)

    def report(self, which: int = 0) -> ExitReport:
        """Wait for an exit report."""
        wait_until(lambda: len(self.reports) > which, TIMEOUT)
        return self.reports[which]


def with_policy(agent_id: str, restart: str, **more: Any) -> AgentSpec:
    """Return an `ObedientAgent` that is started again quickly."""
    spec = spec_of(ObedientAgent, agent_id)
    policy = {"restart": restart, **QUICK, **more}
    return AgentSpec.model_validate({**spec.model_dump(), "restart_policy": policy})


def tell(guild: Guild, agent_id: str, do: str) -> None:
    """Have an agent do something that it does not answer."""
    guild.publish({"do": do}, GuildTopics.get_agent_inbox(agent_id))


def pid_of(guild: Guild, agent_id: str) -> int:
    """Return the pid of an agent's worker."""
    pid: int = guild.get_process_info(agent_id)["pid"]
    return pid


class TestDeaths:
    """Actors that end by themselves, or are ended."""

    def test_a_killed_worker_is_reported(self, guild: Guild, engine: RayExecutionEngine) -> None:
        """After SIGKILL there is a report with pid and signal; the agent stays listed, dead."""
        seen = Seen(engine)
        guild.launch_agent(spec_of(ObedientAgent, "a"))
        pid = pid_of(guild, "a")
        os.kill(pid, signal.SIGKILL)
        report = seen.report()
        assert (report.agent_id, report.pid, report.requested) == ("a", pid, False)
        assert report.failed
        assert report.is_final
        if report.exitcode is not None:  # Linux 6.15 and newer tell it
            assert report.signal == "SIGKILL"
            assert "killed from outside by SIGKILL" in report.reason
        assert [e.state for e in seen.events] == ["STARTING", "RUNNING", "EXITED"]
        assert not engine.is_agent_running("faults", "a")
        assert engine.get_exit_report("faults", "a") == report
        info = engine.get_process_info("faults", "a")
        assert (info["status"], info["is_alive"], info["last_exit"]) == (
            "EXITED",
            False,
            str(report),
        )
        assert [spec.id for spec in engine.cleanup_dead_processes()] == ["a"]
        assert list(engine.get_agents_in_guild("faults")) == ["a"]
        assert engine.get_engine_stats()["states"] == {"EXITED": 1}

    def test_a_permanent_agent_comes_back(self, guild: Guild, engine: RayExecutionEngine) -> None:
        """Killed, it answers again under its id, and gets what was sent to its topics meanwhile."""
        seen = Seen(engine)
        spec = with_policy("p", "permanent")
        guild.launch_agent(spec.model_copy(update={"additional_topics": ("extra",)}))
        first = ask(guild, "p", "tell")["result"]["pid"]
        os.kill(first, signal.SIGKILL)
        seen.report()
        answer = guild.request({"do": "tell"}, "extra", timeout=TIMEOUT)
        assert answer.payload["by"] == answer.sender.id == "p"
        assert answer.payload["result"]["pid"] != first
        info = guild.get_process_info("p")
        assert (info["generation"], info["restarts"], info["status"]) == (2, 1, "RUNNING")
        assert seen.reports[0].restart_in == pytest.approx(0.01)

    def test_an_exit_in_a_handler_is_told_with_its_code(
        self, guild: Guild, engine: RayExecutionEngine
    ) -> None:
        """`sys.exit(4)` ends the agent with 4, and the report names the message in hand."""
        seen = Seen(engine)
        guild.launch_agent(spec_of(agents.DyingAgent, "d"))
        asked = guild.publish({"how": "exit"}, GuildTopics.get_agent_inbox("d"))
        report = seen.report()
        assert (report.exitcode, report.reason) == (4, "ended with exit code 4")
        assert report.message_id == asked.id
        assert report.peak_memory_mb is not None
        assert report.peak_memory_mb > 10

    def test_too_many_deaths_are_given_up(self, guild: Guild, engine: RayExecutionEngine) -> None:
        """An agent that dies more often than its policy allows is FATAL, and said to be."""
        seen = Seen(engine)
        guild.launch_agent(with_policy("f", "permanent", intensity=1))
        for n in range(2):
            wait_until(lambda: engine.is_agent_running("faults", "f"), TIMEOUT)
            os.kill(pid_of(guild, "f"), signal.SIGKILL)
            seen.report(n)
        wait_until(lambda: engine.get_process_info("faults", "f")["status"] == "FATAL")
        assert seen.reports[1].gave_up

    def test_an_agent_above_its_memory_limit_is_killed(
        self, guild: Guild, engine: RayExecutionEngine
    ) -> None:
        """`limits.memory` ends the worker, with what it used in the report."""
        seen = Seen(engine)
        spec = spec_of(ObedientAgent, "m").model_dump() | {"limits": {"memory": 1 << 20}}
        guild.launch_agent(AgentSpec.model_validate(spec))
        assert "its limit is 1 MB" in seen.report().reason

    def test_an_agent_retires_after_its_messages(self, guild: Guild) -> None:
        """After `limits.max_messages` a fresh actor takes over, without a failure."""
        spec = spec_of(ObedientAgent, "r").model_dump() | {"limits": {"max_messages": 1}}
        guild.launch_agent(AgentSpec.model_validate(spec))
        pids = [ask(guild, "r", "tell")["result"]["pid"] for _ in range(2)]
        assert pids[0] != pids[1]

    def test_all_are_started_again_with_one(
        self, ray_cluster: TestCluster, config: dict[str, Any]
    ) -> None:
        """With strategy 'one_for_all' the others are stopped and started again, too."""
        with (
            RayExecutionEngine(
                "faults", address=ray_cluster.address, strategy="one_for_all"
            ) as engine,
            Guild("faults", engine, config) as guild,
        ):
            guild.launch_agents([with_policy("x", "permanent"), with_policy("y", "permanent")])
            other = pid_of(guild, "y")
            os.kill(pid_of(guild, "x"), signal.SIGKILL)
            wait_until(lambda: engine.get_engine_stats()["restarts"] == 2, TIMEOUT)
            wait_until(lambda: engine.get_engine_stats()["alive_agents"] == 2, TIMEOUT)
            assert pid_of(guild, "y") != other

    def test_a_lost_node_is_named_and_its_agents_move(
        self, guild: Guild, engine: RayExecutionEngine, ray_cluster: TestCluster
    ) -> None:
        """Where a node dies, a permanent agent goes on on another one that has what it needs."""
        seen = Seen(engine)
        nodes = [ray_cluster.add_node(resources={"moving": 1}) for _ in range(2)]
        spec = with_policy("n", "permanent").model_dump() | {"resources": {"custom": {"moving": 1}}}
        guild.launch_agent(AgentSpec.model_validate(spec))
        home = guild.get_process_info("n")["node"]
        lost, other = sorted(nodes, key=lambda node: node.node_id != home)
        assert lost.node_id == home
        ray_cluster.remove_node(lost)
        reason = seen.report().reason
        assert f"node {home[:12]}" in reason, reason
        assert ask(guild, "n", "tell")["by"] == "n"
        assert guild.get_process_info("n")["node"] == other.node_id
        engine.stop_agent("faults", "n")
        ray_cluster.cluster.remove_node(other)


class TestEnding:
    """Agents that do not want to end."""

    def test_a_hanging_agent_is_killed_in_time(
        self, guild: Guild, engine: RayExecutionEngine
    ) -> None:
        """Handlers that never return hold up a shutdown no longer than its one deadline."""
        specs = [spec_of(agents.DyingAgent, f"h{n}") for n in range(3)]
        guild.launch_agents(specs)
        for spec in specs:
            guild.publish({"how": "hang"}, GuildTopics.get_agent_inbox(spec.id))
            wait_until(lambda i=spec.id: guild.get_process_info(i)["busy_for"] is not None)
        seen = Seen(engine)
        began = time.monotonic()
        engine.shutdown(timeout=0.5)
        assert time.monotonic() - began < 5
        reasons = {report.reason for report in seen.reports}
        assert reasons == {"was killed: it did not stop within 0.5 s"}
        assert all(report.requested for report in seen.reports)

    def test_a_constructor_that_hangs_fails_the_launch(
        self, ray_cluster: TestCluster, config: dict[str, Any]
    ) -> None:
        """An agent that is not ready in time is killed, and the launch says so."""
        with (
            RayExecutionEngine("faults", address=ray_cluster.address, start_timeout=6) as engine,
            Guild("faults", engine, config) as guild,
            pytest.raises(AgentStartError, match="was not ready within 6 s"),
        ):
            guild.launch_agent(spec_of(agents.HangingAgent, "h"))


class TestQuestions:
    """Engines that ask about agents of others."""

    def test_another_program_can_ask(
        self, guild: Guild, engine: RayExecutionEngine, ray_cluster: TestCluster
    ) -> None:
        """An engine in another process lists agents, looks at them, and cannot start a second."""
        spec = AgentSpec.model_validate(
            spec_of(agents.MultiplyingAgent, "q").model_dump()
            | {"resources": {"custom": {"second": 1}}}
        )
        guild.launch_agent(spec)
        with start_program("ask_ray.py", ray_cluster.address, "faults", "q") as program:
            out, err = program.communicate(timeout=60)
        assert program.returncode == 0, err
        listed, running, pid, memory, node, refused = out.split()
        assert (listed, running, refused) == ("q", "True", "DuplicateAgentError")
        own = engine.get_process_info("faults", "q")
        assert int(pid) == own["pid"]
        assert float(memory) > 1
        assert node == own["node"]
        assert engine.is_agent_running("faults", "q")

    def test_a_lost_directory_is_made_again(self, guild: Guild, ray_cluster: TestCluster) -> None:
        """Where what tells others is killed, they are told once more."""
        import ray

        guild.launch_agent(spec_of(ObedientAgent, "a"))
        with RayExecutionEngine("faults", address=ray_cluster.address) as other:
            assert other.is_agent_running("faults", "a")
            (before,) = directories()
            kept = ray.get_actor(before, namespace=NAMESPACE)
            pid = ray.get(kept.__ray_call__.remote(lambda _: os.getpid()))
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda: directories() not in ([], [before]), TIMEOUT)
            wait_until(lambda: other.is_agent_running("faults", "a"), TIMEOUT)
            assert other.get_process_info("faults", "a")["pid"] == pid_of(guild, "a")

    def test_two_engines_cannot_run_one_agent(
        self, guild: Guild, ray_cluster: TestCluster, config: dict[str, Any]
    ) -> None:
        """An id that runs in a guild is taken, whichever engine of the cluster runs it."""
        guild.launch_agent(spec_of(ObedientAgent, "a"))
        with (
            RayExecutionEngine("faults", address=ray_cluster.address) as other,
            pytest.raises(DuplicateAgentError, match="'a' already runs"),
        ):
            other.run_agent(guild.to_spec(), spec_of(ObedientAgent, "a"), config)
        assert ask(guild, "a", "tell")["by"] == "a"
