"""A guild in the hands of a program: launch, ask, collect, wait, end."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from rustic_ai.core.agents.testutils import EchoAgent, ProbeAgent
from rustic_ai.core.errors import (
    AgentStartError,
    BackendClosedError,
    NotPicklableError,
    RequestTimeoutError,
)
from rustic_ai.core.guild import (
    Agent,
    AgentBuilder,
    BaseAgentProps,
    Guild,
    GuildBuilder,
    ProcessContext,
)
from rustic_ai.core.guild.agent import JsonDict, processor
from rustic_ai.core.guild.execution import MultiProcessExecutionEngine, SyncExecutionEngine
from rustic_ai.core.guild.system_messages import GuildStarted, ProgressReport
from rustic_ai.core.guild.topics import GuildTopics
from rustic_ai.core.messaging import AgentTag, Priority
from rustic_ai.core.testing.agents import MultiplyingAgent, Number, RaisingAgent
from tests.support import NO_MESSAGES, embedded, spec_of


class CountingAgent(Agent):
    """Works when the guild has begun, and finishes it."""

    @processor(GuildStarted)
    def work(self, ctx: ProcessContext[GuildStarted]) -> None:
        """Report three steps, then finish."""
        for n in range(3):
            ctx.report_progress(n + 1, 3, "steps")
        ctx.finish_guild({"agents": sorted(ctx.payload.agents.values())})


class FailingAgent(Agent):
    """Answers with an error of its own."""

    @processor(JsonDict)
    def refuse(self, ctx: ProcessContext[JsonDict]) -> None:
        """Send an error model."""
        ctx.send_error(Number(value=7))


@pytest.fixture
def guild() -> Iterator[Guild]:
    """Give a guild within this process."""
    with Guild("g", SyncExecutionEngine("g"), NO_MESSAGES) as guild:
        yield guild


def test_a_guild_built_launched_and_awaited(free_port: int) -> None:
    """Agents start in order, begin together, report, finish; then nothing is left."""
    builder = GuildBuilder("built", "Built", "A guild").set_messaging(embedded(free_port))
    builder.add_agent_spec(spec_of(CountingAgent, "counter"))
    builder.add_agent_spec(spec_of(MultiplyingAgent, "other"))
    seen: list[tuple[float, str | None]] = []

    def on_progress(report: ProgressReport, sender: AgentTag) -> None:
        seen.append((report.done, sender.name))

    with builder.launch() as guild:
        finished = guild.wait(timeout=20, on_progress=on_progress)
        assert guild.get_agent_count() == len(guild.list_all_running_agents()) == 2
        assert guild.to_spec().name == "Built"
    assert finished.success
    assert finished.result == {"agents": ["counter", "other"]}
    told = [(1, "counter"), (2, "counter"), (3, "counter")]
    assert seen in (told, told[1:], told[2:])  # of those before the wait, the last is kept


def test_a_launch_that_fails_ends_what_was_started(free_port: int) -> None:
    """If one agent does not start, those before it are stopped, and the error is raised."""
    builder = GuildBuilder("half").set_messaging(embedded(free_port))
    builder.add_agent_spec(spec_of(MultiplyingAgent, "fine"))
    builder.add_agent_spec(spec_of(RaisingAgent, "broken"))
    with pytest.raises(AgentStartError, match="'broken' did not start"):
        builder.launch()


def test_defaults_make_a_guild_of_an_id_alone() -> None:
    """Without engine and messaging a guild uses processes and the embedded server."""
    with Guild("only-an-id") as guild:
        guild.launch_agent(spec_of(MultiplyingAgent, "m"))
        assert guild.request(Number(value=2), timeout=20).payload["value"] == 4


def test_agents_are_found_by_id_and_name(guild: Guild) -> None:
    """Agents are known by id and by name until they are removed."""
    spec = AgentBuilder(MultiplyingAgent).set_id("i").set_name("n").build_spec()
    guild.launch_agent(spec)
    assert guild.get_agent("i") == guild.get_agent_by_name("n") == spec
    assert guild.list_agents() == guild.list_all_running_agents() == [spec]
    guild.remove_agent("i")
    guild.remove_agent("i")
    assert guild.get_agent("i") is guild.get_agent_by_name("n") is None
    assert guild.get_agent_count() == 0
    assert guild.get_process_info("i") == {}


def test_nobody_answers(guild: Guild) -> None:
    """Requests, waits and collectors end with a time-out that says what was missing."""
    with pytest.raises(RequestTimeoutError, match="an answer to <Message"):
        guild.request({"x": 1}, timeout=0.05)
    with pytest.raises(RequestTimeoutError, match="the end of guild 'g' did not come"):
        guild.wait(timeout=0.05)
    with guild.collect("topic") as box:
        guild.publish({"n": 1}, topics="topic")
        with pytest.raises(RequestTimeoutError, match="message 2 of 2 on topic 'topic'"):
            box.take(2, timeout=0.05)
        (kept,) = box.take(1, timeout=1)
        assert kept.payload == {"n": 1}
        assert box.next(timeout=0.01) is None


def test_history_can_be_read(guild: Guild) -> None:
    """What a topic got can be read later, from the beginning or from a message on."""
    sent = [guild.publish({"n": n}, topics="t") for n in range(3)]
    assert guild.get_messages("t") == sent
    assert guild.get_messages("t", since=sent[0].id) == sent[1:]
    assert {m.topic_published_to for m in guild.get_messages("t")} == {"t"}


def test_an_error_answer_is_an_answer(guild: Guild) -> None:
    """`send_error` answers with a model, marked as an error, on the error topic too."""
    guild.launch_agent(spec_of(FailingAgent, "f"))
    with guild.collect(GuildTopics.ERROR_TOPIC) as errors:
        answer = guild.request({}, timeout=5)
        assert answer.is_error_message
        assert answer.payload == {"value": 7}
        assert errors.take(1, timeout=5)[0].id == answer.id


def test_options_of_publish(guild: Guild) -> None:
    """Format, priority, recipients and time to live travel with the message."""
    with guild.collect("t") as box:
        tag = AgentTag("a", "A")
        options = {"format": "f", "priority": Priority.HIGH, "recipients": [tag], "ttl": 60.0}
        guild.publish({}, topics="t", **options)
        (got,) = box.take(1, timeout=5)
    assert (got.format, got.priority, got.recipient_list, got.ttl) == (
        "f",
        Priority.HIGH,
        (tag,),
        60,
    )
    assert got.sender.name == "driver"


def test_a_guild_that_was_shut_down_refuses(guild: Guild) -> None:
    """After `shutdown` nothing is opened again behind one's back."""
    guild.publish({})
    guild.shutdown()
    with pytest.raises(BackendClosedError, match="guild 'g' was shut down"):
        guild.publish({})
    guild.shutdown()


def test_echo_and_probe(guild: Guild) -> None:
    """The agents for tests send back and collect."""
    guild.launch_agent(spec_of(EchoAgent, "echo"))
    answer = guild.request({"text": "hello"}, timeout=5)
    assert (answer.payload, answer.sender.name) == ({"text": "hello"}, "echo")
    assert ProbeAgent.processors[0].format is None


class AnyProps(BaseAgentProps):
    """Takes anything."""

    thing: Any


class AnyAgent(Agent[AnyProps]):
    """Has a property of any kind."""


@pytest.mark.parametrize(
    ("shared", "own", "thing", "path"),
    [
        ({"lock": threading.Lock()}, None, 1, r'guild dependencies\["lock"\] is a _thread.lock'),
        ({}, lambda: 1, 1, r'dependencies\["own"\] is a function'),
        ({}, None, [threading.Lock()], r'properties\["thing"\]\[0\] is a _thread.lock'),
    ],
    ids=["guild", "agent", "property"],
)
def test_what_cannot_travel_is_refused(
    shared: dict[str, Any], own: object, thing: object, path: str
) -> None:
    """Values of guild, agent and properties that do not pickle are refused with their path."""
    builder = AgentBuilder(AnyAgent).set_name("m").set_properties({"thing": thing})
    with (
        MultiProcessExecutionEngine("g") as engine,
        Guild("g", engine, NO_MESSAGES, dependency_map=shared) as guild,
        pytest.raises(NotPicklableError, match=path),
    ):
        guild.launch_agent(builder.add_dependency("own", own).build_spec())
