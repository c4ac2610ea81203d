"""Agents and processors, without a guild."""

from __future__ import annotations

import pytest
from pydantic import BaseModel, ValidationError

from rustic_ai.core.errors import SpecError
from rustic_ai.core.guild import Agent, AgentBuilder, AgentSpec, BaseAgentProps, DependencySpec
from rustic_ai.core.guild.agent import JsonDict, ProcessContext, processor
from rustic_ai.core.guild.routing import result_topics
from rustic_ai.core.guild.topics import GuildTopics
from rustic_ai.core.messaging import AgentTag, Message
from rustic_ai.core.messaging.core.message_id import GemstoneGenerator


class Hello(BaseModel):
    """A format."""


class BaseHandler(Agent):
    """Has two handlers."""

    @processor(JsonDict)
    def first(self, ctx: ProcessContext[JsonDict]) -> None: ...

    @processor(Hello)
    async def second(self, ctx: ProcessContext[Hello]) -> None: ...


class Override(BaseHandler):
    """Replaces one, adds one."""

    @processor(Message)
    def first(self, ctx: ProcessContext[JsonDict]) -> None: ...

    @processor(JsonDict)
    def third(self, ctx: ProcessContext[JsonDict]) -> None: ...


class Props(BaseAgentProps):
    """Typed properties."""

    size: int


class Typed(Agent[Props]):
    """Names its properties."""


class TypedChild(Typed):
    """Inherits them."""


def message(*topics: str, sender: str | None = "s") -> Message:
    """Make a message."""
    ids = GemstoneGenerator()
    return Message(id_obj=ids.get_id(), sender=AgentTag(sender), topics=topics, payload={})


def test_handlers_are_inherited_and_overridden() -> None:
    """A subclass keeps the order of its base; an overriding handler replaces the other."""
    assert [(p.method, p.format) for p in BaseHandler.processors] == [
        ("first", "generic_json"),
        ("second", f"{__name__}.Hello"),
    ]
    assert [(p.method, p.format) for p in Override.processors] == [
        ("first", None),
        ("second", f"{__name__}.Hello"),
        ("third", "generic_json"),
    ]


def test_the_type_of_properties_is_inherited() -> None:
    """`Agent[Props]` says what `config` is, for subclasses too."""
    assert Typed.props_type is TypedChild.props_type is Props
    assert BaseHandler.props_type is BaseAgentProps


def test_a_handler_must_take_its_dependencies() -> None:
    """A dependency without an argument of its name is refused when the class is written."""
    with pytest.raises(TypeError, match="depends on 'db' and needs an argument"):

        @processor(JsonDict, depends_on=["db"])
        def handler(self: object, ctx: object) -> None: ...


def test_a_handler_needs_a_payload_type() -> None:
    """What is neither a model nor JsonDict nor Message is refused."""
    with pytest.raises(TypeError, match=r"takes a pydantic model, JsonDict or Message, not .*int"):
        processor(int)


@pytest.mark.parametrize(
    ("topics", "sender", "expected"),
    [
        (["a", "b"], "s", ["a", "b"]),
        (["inbox"], "s", [GuildTopics.get_agent_inbox("s")]),
        (["inbox"], None, GuildTopics.DEFAULT_TOPICS),
        ([GuildTopics.SYSTEM_TOPIC], "s", GuildTopics.DEFAULT_TOPICS),
    ],
)
def test_where_results_go(topics: list[str], sender: str | None, expected: list[str]) -> None:
    """To the topics of the cause; from the inbox to the sender; never back to itself."""
    assert list(result_topics(message(*topics, sender=sender), "inbox")) == expected


def test_specs_are_frozen_and_strict() -> None:
    """A spec cannot be changed, and takes no unknown key."""
    spec = AgentSpec(name="a", class_name="x.Y")
    with pytest.raises(ValidationError, match="frozen"):
        spec.name = "b"  # type: ignore[misc]
    with pytest.raises(ValidationError, match="Extra inputs"):
        AgentSpec(name="a", class_name="x.Y", colour="red")  # type: ignore[call-arg]
    assert spec.id != AgentSpec(name="a", class_name="x.Y").id


def test_subscribed_topics() -> None:
    """Inbox and system topic always, the default topic unless declined, each once."""
    builder = AgentBuilder(Typed).set_id("t").set_name("t").set_properties(Props(size=1))
    builder.add_additional_topic("more").add_additional_topic("more")
    fixed = [GuildTopics.get_agent_inbox("t"), GuildTopics.SYSTEM_TOPIC]
    assert builder.build_spec().subscribed_topics == [*fixed, "default_topic", "more"]
    builder.listen_to_default_topic(False)
    assert builder.build_spec().subscribed_topics == [*fixed, "more"]


def test_builders_name_what_is_missing_or_wrong() -> None:
    """A builder says which setter is missing, and names every wrong field."""
    with pytest.raises(SpecError, match="no name") as caught:
        AgentBuilder(Typed).build_spec()
    assert caught.value.hint == "call set_name(...)"
    with pytest.raises(SpecError, match="no class_name"):
        AgentBuilder().set_name("x").build_spec()
    with pytest.raises(SpecError, match="name: String should have at least 1 character"):
        AgentBuilder(Typed).set_name("").build_spec()
    with pytest.raises(SpecError, match=r"name: .* a control character"):
        AgentBuilder(Typed).set_name("two\nlines").build_spec()


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({}, "give class_name"),
        ({"class_name": "a.B", "value": 1}, "not both"),
        ({"value": 1, "properties": {"a": 1}}, "properties go with class_name"),
    ],
)
def test_a_dependency_is_a_resolver_or_a_value(fields: dict[str, object], text: str) -> None:
    """Exactly one of the two ways to give a dependency is allowed; None is a value too."""
    with pytest.raises(ValidationError, match=text):
        DependencySpec.model_validate(fields)
    assert DependencySpec.of(None).is_value


def test_a_name_in_the_place_of_a_class_is_refused() -> None:
    """A builder that gets a name says what takes one."""
    with pytest.raises(TypeError, match=r"not 'a\.B'; .*set_class_name"):
        AgentBuilder("a.B")  # type: ignore[arg-type]
