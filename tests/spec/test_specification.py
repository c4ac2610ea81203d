"""Every code block of the specification, word for word, with real processes."""

from __future__ import annotations

import inspect
import multiprocessing
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from rustic_ai.core.errors import AgentStartError, ProcessLimitError
from rustic_ai.core.guild import AgentSpec, Guild
from rustic_ai.core.guild.execution.multiprocess import (
    MultiProcessAgentTracker,
    MultiProcessAgentWrapper,
    MultiProcessExecutionEngine,
)
from rustic_ai.core.guild.topics import GuildTopics
from rustic_ai.core.messaging import MessagingConfig
from rustic_ai.core.testing.agents import MultiplyingAgent, RaisingAgent
from tests.spec import prelude
from tests.spec.snippets import all_snippets, run, snippet, start_script
from tests.support import embedded, spec_of

TESTED = {
    "Simple Setup",
    "With Guild",
    "CPU-Intensive Workloads",
    "Process Monitoring",
    "Fault Tolerance",
    "Engine Configuration",
    "Messaging Configuration",
    "Process Start Method",
    "Constructor",
    "Core Methods",
    "Error Handling",
    "Parallel Data Processing",
    "CPU-Intensive Monte Carlo Simulation",
    "Fork() Deprecation Warning",
    "Pytest Hanging Issue",
    "Debugging",
    "Performance Monitoring",
    "Integration with Embedded Messaging Backend",
}


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the snippets see a machine with eight cores, which they are written for."""
    monkeypatch.setattr(multiprocessing, "cpu_count", prelude.eight_cores)


@pytest.fixture
def engine() -> Iterator[MultiProcessExecutionEngine]:
    with MultiProcessExecutionEngine("my-guild", max_processes=4) as engine:
        yield engine


@pytest.fixture
def guild(engine: MultiProcessExecutionEngine, free_port: int) -> Iterator[Guild]:
    with Guild("my-guild", engine, embedded(free_port)) as guild:
        yield guild


@pytest.fixture
def agent_spec(guild: Guild) -> AgentSpec:
    """Give the spec of an agent that runs."""
    spec = spec_of(MultiplyingAgent, "m")
    guild.launch_agent(spec)
    return spec


def test_every_block_has_a_test() -> None:
    """No code block of the specification is left out here."""
    assert {s.heading for s in all_snippets()} == TESTED
    assert len(all_snippets()) == 21


def test_simple_setup() -> None:
    """An engine needs a guild id, and takes a limit."""
    scope = run(snippet("Simple Setup"))
    assert scope["engine"].get_engine_stats()["max_processes"] == 8


def test_with_guild() -> None:
    """A guild with an engine of its own runs four agents in four processes."""
    guild: Guild = run(snippet("With Guild"))["guild"]
    with guild:
        pids = {guild.get_process_info(agent.id)["pid"] for agent in guild.list_agents()}
        assert len(guild.list_all_running_agents()) == len(pids) == 4


def test_cpu_intensive_workloads(free_port: int) -> None:
    """Bare class names and value dependencies work; every agent gets its chunk."""
    create = run(snippet("CPU-Intensive Workloads"))["create_computation_agents"]
    with Guild("my-guild", messaging_config=embedded(free_port)) as guild:
        specs = create(guild, [[1, 2], [3, 4]])
        sums = [
            guild.request({}, GuildTopics.get_agent_inbox(spec.id)).payload["sum"] for spec in specs
        ]
    assert sums == [3, 7]


def test_process_monitoring(
    engine: MultiProcessExecutionEngine, agent_spec: AgentSpec, capsys: pytest.CaptureFixture[str]
) -> None:
    """Monitoring prints pid, life and name of each agent, and the numbers of the engine."""
    scope = run(snippet("Process Monitoring"), engine=engine)
    assert capsys.readouterr().out == "Total agents: 1\nMax processes: 4\n"
    scope["monitor_agents"](engine, "my-guild")
    pid = engine.get_process_info("my-guild", agent_spec.id)["pid"]
    assert capsys.readouterr().out == f"Agent m:\n  PID: {pid}\n  Alive: True\n  Name: m\n"


def test_fault_tolerance(tmp_path: Path) -> None:
    """The management loop sees an agent die, removes it, and ends on Ctrl-C with a shutdown."""
    start = """
import os, signal
from rustic_ai.core.testing.waiting import wait_until
engine = MultiProcessExecutionEngine("my-guild", max_processes=2)
guild = Guild("my-guild", engine, create_embedded_messaging_config())
guild.launch_agent(create_cpu_intensive_agent_spec("victim"))
(agent_id,) = engine.get_agents_in_guild("my-guild")
os.kill(engine.get_process_info("my-guild", agent_id)["pid"], signal.SIGKILL)
wait_until(lambda: not engine.is_agent_running("my-guild", agent_id))
robust_agent_management(engine, "my-guild")
print(engine.get_agents_in_guild("my-guild"))
guild.shutdown()
"""
    with start_script(tmp_path / "script.py", snippet("Fault Tolerance"), start) as script:
        assert script.stdout is not None
        assert re.fullmatch(r"Agent \w+ has died, restarting\.\.\.\n", script.stdout.readline())
        script.send_signal(signal.SIGINT)
        out, err = script.communicate(timeout=20)
    assert out == "Shutting down...\n{}\n", err
    assert script.returncode == 0


def test_engine_configuration() -> None:
    """The limit is a keyword."""
    assert run(snippet("Engine Configuration"))["engine"].max_processes == 8


def test_messaging_configuration() -> None:
    """Both configurations can be written; `test_redis_block` uses the second."""
    config = run(snippet("Messaging Configuration"))["messaging_config"]
    assert isinstance(config, MessagingConfig)
    assert config.backend_class == "RedisMessagingBackend"
    assert config.backend_config == {"host": "localhost", "port": 6379, "db": 0}


@pytest.mark.parametrize(
    "heading", ["Process Start Method", "Fork() Deprecation Warning"], ids=["method", "fork"]
)
def test_process_start_method(heading: str, engine: MultiProcessExecutionEngine) -> None:
    """The start method is 'spawn', and choosing it again changes nothing."""
    assert engine.max_processes == 4
    run(snippet(heading, -1))
    assert multiprocessing.get_start_method() == "spawn"


def test_constructor() -> None:
    """The constructor takes what the reference says, in that order."""
    assert "guild_id: str, max_processes: Optional[int] = None" in snippet("Constructor")
    names = list(inspect.signature(MultiProcessExecutionEngine).parameters)
    assert names[:2] == ["guild_id", "max_processes"]


@pytest.mark.parametrize(
    ("cls", "heading", "number"),
    [
        (MultiProcessExecutionEngine, "Core Methods", 0),
        (MultiProcessAgentWrapper, "Core Methods", 1),
        (MultiProcessAgentTracker, "Core Methods", 2),
    ],
)
def test_reference(cls: type, heading: str, number: int) -> None:
    """Every method of the reference exists, with the arguments it names, in their order."""
    methods = re.findall(r"^(\w+)\((.*?)\)", snippet(heading, number), re.MULTILINE)
    assert len(methods) >= 4
    for name, arguments in methods:
        wanted = [a.split(":")[0].strip() for a in arguments.split(",") if a and "**" not in a]
        has = list(inspect.signature(getattr(cls, name)).parameters)[1:]
        assert has[: len(wanted)] == wanted, name


def test_error_handling(guild: Guild) -> None:
    """The handler of launch errors works: a start succeeds, and a failing one is raised."""
    code = snippet("Error Handling")
    run(code, guild=guild, agent_spec=spec_of(MultiplyingAgent, "fine"))
    assert guild.is_agent_running("fine")
    with pytest.raises(AgentStartError, match="no such table"):
        run(code, guild=guild, agent_spec=spec_of(RaisingAgent, "bad"))


def test_error_handling_at_the_limit(guild: Guild, monkeypatch: pytest.MonkeyPatch) -> None:
    """The text that the handler looks for is in the error of the limit."""
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    code = snippet("Error Handling").replace(
        "guild.launch_agent(agent_spec, execution_engine=engine)",
        "[guild.launch_agent(spec, execution_engine=engine) for spec in agent_specs]",
    )
    specs = [spec_of(MultiplyingAgent, name) for name in "ab"]
    scope = run(code, guild=guild, agent_specs=specs)
    assert list(scope["engine"].get_agents_in_guild("my-guild")) == ["a"]


def test_parallel_data_processing(tmp_path: Path) -> None:
    """Five agents run; Ctrl-C ends the example and everything that it started."""
    call = "parallel_data_processing()"
    code = snippet("Parallel Data Processing")
    with start_script(tmp_path / "script.py", code, call) as script:
        assert script.stdout is not None
        assert script.stdout.readline() == "Running agents: 5\n"
        script.send_signal(signal.SIGINT)
        out, err = script.communicate(timeout=20)
    assert out.endswith("Shutting down...\n"), err
    assert script.returncode == 0


def test_monte_carlo_simulation() -> None:
    """The example as written asks for one process more than its own limit, and is told so.

    See docs/decisions/0004: the limit is a promise. With room for the aggregator it runs.
    """
    code = snippet("CPU-Intensive Monte Carlo Simulation")
    made: list[Guild] = []

    def remembered(*args: object, **options: object) -> Guild:
        made.append(Guild(*args, **options))  # type: ignore[arg-type]
        return made[-1]

    with pytest.raises(ProcessLimitError, match=r"Maximum number of processes \(2\)"):
        run(code, Guild=remembered)["monte_carlo_simulation"](2)
    assert [agent.name for agent in made[0].list_all_running_agents()] == [
        "simulation_worker_0",
        "simulation_worker_1",
    ]
    made[0].shutdown()

    with_room = code.replace("max_processes=num_workers)", "max_processes=num_workers + 1)")
    guild, engine = run(with_room)["monte_carlo_simulation"](2)
    with guild:
        assert engine.get_engine_stats()["owned_agents_count"] == 3
        with guild.collect("default_topic") as box:
            guild.publish({})
            shares = [message.payload for message in box.take(3, timeout=20)[1:]]
    assert sorted(share["worker"] for share in shares) == [0, 1]
    assert {share["samples"] for share in shares} == {500_000}


def test_pytest_hanging_issue(engine: MultiProcessExecutionEngine, agent_spec: AgentSpec) -> None:
    """Nothing of the tracker needs a manager process; clearing it twice is fine."""
    assert agent_spec is not None
    run(snippet("Pytest Hanging Issue"), self=engine.tracker)
    tracker = MultiProcessAgentTracker()
    tracker.clear()
    tracker.clear()


def test_debugging(
    engine: MultiProcessExecutionEngine, agent_spec: AgentSpec, capsys: pytest.CaptureFixture[str]
) -> None:
    """The debugging block prints process state and statistics."""
    run(snippet("Debugging"), engine=engine, guild_id="my-guild")
    first, second = capsys.readouterr().out.splitlines()
    assert re.fullmatch(rf"Agent {agent_spec.id}: PID=\d+, Alive=True", first)
    assert "'owned_agents_count': 1" in second


def test_performance_monitoring(
    engine: MultiProcessExecutionEngine, agent_spec: AgentSpec, capsys: pytest.CaptureFixture[str]
) -> None:
    """The psutil block prints memory and CPU of each agent and in all."""
    scope = run(snippet("Performance Monitoring"))
    scope["monitor_engine_performance"](engine, "my-guild")
    first, *rest = capsys.readouterr().out.splitlines()
    found = re.fullmatch(rf"Agent {agent_spec.id}: Memory=([\d.]+)MB, CPU=[\d.]+%", first)
    assert found
    assert float(found[1]) > 5
    assert rest[-1] == "Agents: 1/4"


def test_integration_with_embedded_messaging_backend(tmp_path: Path) -> None:
    """A server in a thread with a loop of its own carries a guild's messages."""
    use = """
guild.launch_agent(create_cpu_intensive_agent_spec("worker"), execution_engine=engine)
print(guild.request({}).payload["sum"])
guild.shutdown()
"""
    code = snippet("Integration with Embedded Messaging Backend")
    with start_script(tmp_path / "script.py", code, use) as script:
        out, err = script.communicate(timeout=30)
    assert (out, script.returncode) == ("6\n", 0), err
