"""What every execution engine promises."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rustic_ai.core.errors import (
    AgentError,
    AgentStartError,
    ClassNotFoundError,
    DependencyCycleError,
    DuplicateAgentError,
    EngineClosedError,
    MissingDependencyError,
    SpecError,
)
from rustic_ai.core.guild.agent.agent import Agent
from rustic_ai.core.guild.builders import AgentBuilder
from rustic_ai.core.guild.execution.engine import ExecutionEngine
from rustic_ai.core.guild.guild import Guild
from rustic_ai.core.guild.spec import AgentSpec, BaseAgentProps, DependencySpec, GuildSpec
from rustic_ai.core.guild.topics import GuildTopics
from rustic_ai.core.messaging.core.envelope import AgentTag
from rustic_ai.core.testing import agents

TIMEOUT = 20.0


def spec_of(agent_class: type[Agent[Any]], agent_id: str, **properties: Any) -> AgentSpec:
    """Return a spec named like its id."""
    builder = AgentBuilder(agent_class).set_id(agent_id).set_name(agent_id)
    return builder.set_properties(properties).build_spec()


class ExecutionEngineContract:
    """Inherit, and give the fixtures `engine` and `messaging_config`.

    `engine` is fresh, serves the guild "contract", has room for at least four agents, and is shut
    down afterwards.
    """

    @pytest.fixture
    def guild(self, engine: ExecutionEngine, messaging_config: Any) -> Iterator[Guild]:
        """Give a guild on the engine."""
        with Guild("contract", engine, messaging_config, organization_id="org") as guild:
            yield guild

    def test_an_agent_answers_as_soon_as_launch_returns(self, guild: Guild) -> None:
        """A message published right after `launch_agent` is received."""
        for n in range(3):
            guild.launch_agent(spec_of(agents.MultiplyingAgent, f"m{n}", factor=n))
            inbox = GuildTopics.get_agent_inbox(f"m{n}")
            answer = guild.request(agents.Number(value=10), inbox, timeout=TIMEOUT)
            assert answer.payload["value"] == 10 * n

    def test_answers_name_cause_and_thread(self, guild: Guild) -> None:
        """An answer carries `in_response_to`, the thread, and the topics of its cause."""
        guild.launch_agent(spec_of(agents.MultiplyingAgent, "m"))
        with guild.collect("default_topic") as box:
            asked = guild.publish(agents.Number(value=1))
            question, answer = box.take(2, TIMEOUT)
        assert question == asked
        assert answer.in_response_to == asked.id
        assert answer.thread == asked.thread == (asked.id,)
        assert answer.sender == AgentTag("m", "m")
        assert answer.topic_published_to == "default_topic"

    def test_a_failing_handler_answers_with_its_error(self, guild: Guild) -> None:
        """A handler's exception becomes an error message, and the agent lives on."""
        guild.launch_agent(spec_of(agents.MultiplyingAgent, "m"))
        with pytest.raises(AgentError) as caught:
            guild.request(agents.Number(value=-1), timeout=TIMEOUT)
        assert caught.value.error_type == "ValueError"
        assert "-1 is negative" in caught.value.message
        assert "in multiply" in caught.value.remote_traceback
        assert guild.request(agents.Number(value=4), timeout=TIMEOUT).payload["value"] == 8
        assert guild.is_agent_running("m")

    def test_an_invalid_payload_is_an_error_message(self, guild: Guild) -> None:
        """A payload that does not validate reaches no handler and is reported."""
        guild.launch_agent(spec_of(agents.MultiplyingAgent, "m"))
        number = "rustic_ai.core.testing.agents.Number"
        with pytest.raises(AgentError, match=r"not a valid rustic_ai.core.testing.agents.Number"):
            guild.request({"value": "many"}, format=number, timeout=TIMEOUT)
        assert guild.request({"value": 2}, format=number, timeout=TIMEOUT).payload["value"] == 4

    def test_async_handlers_share_a_loop(self, guild: Guild) -> None:
        """Hooks and handlers that are coroutines run on one loop of the agent's own."""
        guild.launch_agent(spec_of(agents.AsyncAgent, "a"))
        for _ in range(2):
            assert guild.request(agents.Number(value=0), timeout=TIMEOUT).payload["value"] == 1

    def test_the_life_of_an_agent(self, guild: Guild, tmp_path: Path) -> None:
        """`on_start` runs before the first message and `on_stop` after the last."""
        path = tmp_path / "life"
        guild.launch_agent(spec_of(agents.LifecycleAgent, "l", path=str(path)))
        assert guild.request({"text": "hello"}, timeout=TIMEOUT).payload == {"noted": True}
        guild.remove_agent("l")
        assert path.read_text().split() == ["start", "hello", "stop"]

    def test_queries(self, guild: Guild, engine: ExecutionEngine) -> None:
        """The engine tells of its agents in the words of the specification."""
        spec = spec_of(agents.MultiplyingAgent, "m")
        guild.launch_agent(spec)
        assert engine.get_agents_in_guild("contract") == {"m": spec}
        assert engine.find_agents_by_name("contract", "m") == [spec]
        assert engine.find_agents_by_name("contract", "other") == []
        assert engine.is_agent_running("contract", "m")
        info = engine.get_process_info("contract", "m")
        assert info["is_alive"]
        assert info["name"] == "m"
        assert info["status"] == "RUNNING"
        assert info["exitcode"] is None
        assert info["memory_mb"] > 1
        answer = guild.request(agents.Number(value=1), timeout=TIMEOUT)
        assert info["pid"] == answer.payload["pid"]
        stats = engine.get_engine_stats()
        assert stats["engine_type"] == type(engine).__name__
        assert stats["guild_id"] == "contract"
        counts = ("total_agents", "alive_agents", "total_guilds", "owned_agents_count")
        assert [stats[name] for name in counts] == [1, 1, 1, 1]
        assert {"max_processes", "active_processes"} <= stats.keys()
        assert engine.cleanup_dead_processes() == []

    def test_unknown_agents_are_no_error(self, engine: ExecutionEngine) -> None:
        """Asking about or stopping an unknown agent is answered, not refused."""
        assert engine.get_process_info("contract", "nobody") == {}
        assert not engine.is_agent_running("contract", "nobody")
        assert engine.get_agents_in_guild("nowhere") == {}
        engine.stop_agent("contract", "nobody")

    def test_stopping_one_leaves_the_others(self, guild: Guild, engine: ExecutionEngine) -> None:
        """A stopped agent is off the list; another goes on answering."""
        guild.launch_agent(spec_of(agents.MultiplyingAgent, "a"))
        guild.launch_agent(spec_of(agents.MultiplyingAgent, "b"))
        engine.stop_agent("contract", "a")
        assert list(engine.get_agents_in_guild("contract")) == ["b"]
        assert not engine.is_agent_running("contract", "a")
        assert guild.request(agents.Number(value=1), timeout=TIMEOUT).payload["agent"] == "b"

    def test_an_id_runs_once(self, guild: Guild) -> None:
        """An agent that runs cannot be launched again; once stopped, it can."""
        spec = spec_of(agents.MultiplyingAgent, "m")
        guild.launch_agent(spec)
        with pytest.raises(DuplicateAgentError, match="'m' already runs"):
            guild.launch_agent(spec)
        guild.remove_agent("m")
        guild.launch_agent(spec)
        assert guild.is_agent_running("m")

    def test_a_failed_start_tells_why(self, guild: Guild, engine: ExecutionEngine) -> None:
        """A constructor that raises fails the launch with its traceback; nothing stays listed."""
        with pytest.raises(AgentStartError) as caught:
            guild.launch_agent(spec_of(agents.RaisingAgent, "r"))
        assert "LookupError: no such table" in str(caught.value)
        assert "in __init__" in caught.value.remote_traceback
        assert isinstance(caught.value.__cause__, LookupError)
        assert engine.get_agents_in_guild("contract") == {}
        guild.launch_agent(spec_of(agents.MultiplyingAgent, "m"))

    def test_a_constructor_that_exits_fails_the_launch(self, guild: Guild) -> None:
        """`sys.exit` in a constructor ends neither the program nor the guild."""
        with pytest.raises(AgentStartError, match="SystemExit: 3"):
            guild.launch_agent(spec_of(agents.ExitingAgent, "e"))

    @pytest.mark.parametrize(
        ("class_name", "text"),
        [
            ("rustic_ai.core.testing.agents.MultiplyingAgnt", "did you mean 'MultiplyingAgent'"),
            ("rustic_ai.core.testing.agents.Number", "no Agent"),
            ("rustic_ai.core.nowhere.Thing", "no module 'rustic_ai.core.nowhere'"),
        ],
    )
    def test_wrong_classes_are_refused(self, guild: Guild, class_name: str, text: str) -> None:
        """A class that is not there, or is no agent, is refused with what is near."""
        with pytest.raises(ClassNotFoundError, match=text):
            guild.launch_agent(AgentSpec(name="x", class_name=class_name))
        assert guild.get_agent_count() == 0

    def test_a_class_inside_a_function_is_refused(self, guild: Guild) -> None:
        """A class that no other process could import is refused on every engine."""

        class Local(Agent[BaseAgentProps]):
            """Out of reach."""

        with pytest.raises(SpecError, match="inside a function"):
            guild.launch_agent(AgentSpec(name="x", class_name="Local"))

    def test_wrong_properties_are_refused(self, guild: Guild) -> None:
        """Properties that the class does not take are refused before anything starts."""
        with pytest.raises(SpecError, match=r"properties\.facto: Extra inputs"):
            guild.launch_agent(spec_of(agents.MultiplyingAgent, "m", facto=3))

    def test_missing_dependencies_are_refused(self, guild: Guild) -> None:
        """A key that nobody defines is refused, naming who wants it and what there is."""
        with pytest.raises(MissingDependencyError, match=r"DependentAgent.add .* 'offset'"):
            guild.launch_agent(spec_of(agents.DependentAgent, "d"))

    def test_circular_dependencies_are_refused(self, guild: Guild) -> None:
        """Resolvers that need each other are refused, showing the circle."""
        base = f"{agents.__name__}."
        builder = AgentBuilder(agents.DependentAgent).set_name("d").add_dependency("offset", 1)
        builder.add_dependency("one", DependencySpec(class_name=base + "NeedsTwo"))
        builder.add_dependency("two", DependencySpec(class_name=base + "NeedsOne"))
        with pytest.raises(DependencyCycleError, match="one -> two -> one"):
            guild.launch_agent(builder.build_spec())

    def test_dependencies(
        self, engine: ExecutionEngine, messaging_config: Any, tmp_path: Path
    ) -> None:
        """The agent's own go before the guild's; resolvers run beside it and close at its end."""
        path = tmp_path / "log"
        resolver = DependencySpec(
            class_name=f"{agents.__name__}.RecordingResolver",
            properties={"path": str(path), "value": 7},
        )
        shared = {"offset": 100}
        with Guild("contract", engine, messaging_config, dependency_map=shared) as guild:
            guild.launch_agent(spec_of(agents.DependentAgent, "d"))
            assert guild.request(agents.Number(value=1), timeout=TIMEOUT).payload["value"] == 101
            guild.remove_agent("d")
            own = AgentBuilder(agents.DependentAgent).set_id("o").set_name("o")
            guild.launch_agent(own.add_dependency_resolver("offset", resolver).build_spec())
            assert guild.request(agents.Number(value=1), timeout=TIMEOUT).payload["value"] == 8
            guild.remove_agent("o")
        lines = path.read_text().splitlines()
        assert [line.split()[0] for line in lines] == ["resolve", "close"]
        assert lines[0].endswith("contract o")

    def test_only_when_tagged(self, guild: Guild) -> None:
        """An agent that acts only when tagged ignores what does not name it."""
        builder = AgentBuilder(agents.MultiplyingAgent).set_id("t").set_name("t")
        guild.launch_agent(builder.act_only_when_tagged(True).build_spec())
        with guild.collect("default_topic") as box:
            guild.publish(agents.Number(value=1))
            tagged = guild.publish(agents.Number(value=2), recipients=[AgentTag(id="t")])
            answer = box.take(3, TIMEOUT)[-1]
        assert answer.in_response_to == tagged.id

    def test_shutdown_ends_all_and_is_final(
        self, engine: ExecutionEngine, messaging_config: Any
    ) -> None:
        """After `shutdown`, which may be called twice, launches are refused and queries empty."""
        guild = Guild("contract", engine, messaging_config)
        guild.launch_agent(spec_of(agents.MultiplyingAgent, "m"))
        guild.shutdown()
        engine.shutdown()
        assert engine.get_agents_in_guild("contract") == {}
        assert not engine.is_agent_running("contract", "m")
        with pytest.raises(EngineClosedError, match="was shut down"):
            guild.launch_agent(spec_of(agents.MultiplyingAgent, "m"))
        guild.shutdown()

    def test_an_engine_works_without_a_guild(
        self, engine: ExecutionEngine, messaging_config: Any, tmp_path: Path
    ) -> None:
        """`run_agent` can be called as the specification writes it, with positions."""
        spec = spec_of(agents.LifecycleAgent, "l", path=str(tmp_path / "life"))
        engine.run_agent(GuildSpec(id="contract"), spec, messaging_config, 1)
        assert engine.is_agent_running("contract", "l")
        engine.shutdown()
        assert (tmp_path / "life").read_text().split() == ["start", "stop"]
