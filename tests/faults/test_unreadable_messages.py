"""Messages that are none, from somebody who speaks the protocol and not our envelopes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rustic_ai.core.errors import ProtocolError
from rustic_ai.core.guild import Agent, AgentBuilder, ProcessContext, agent
from rustic_ai.core.guild.execution.host import AgentHost, AgentLaunch
from rustic_ai.core.guild.topics import GuildTopics
from rustic_ai.core.messaging import (
    AgentTag,
    JsonDict,
    Message,
    MessagingConfig,
    MessagingInterface,
)
from rustic_ai.core.messaging.backend.embedded_backend import EmbeddedMessagingBackend
from rustic_ai.core.messaging.backend.embedded_backend.protocol import pack_publish
from rustic_ai.core.messaging.core.message_id import GemstoneGenerator, next_id
from rustic_ai.core.messaging.core.priority import Priority
from rustic_ai.core.testing.contracts.messaging_backend import SPACE, TOPIC, Box, message
from rustic_ai.core.testing.waiting import wait_until

ids = GemstoneGenerator()
GARBAGE = [b"", b"\xc1", b"no envelope", b"\xff" * 100_000]


class Echo(Agent):
    """Sends back what it gets."""

    @agent.processor(JsonDict)
    def echo(self, ctx: ProcessContext[JsonDict]) -> None:
        """Do so."""
        ctx.send_dict(ctx.payload)


class Watch:
    """Notes what an agent works on."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.errors: list[int] = []

    def begin(self, message_id: int) -> None:
        """Note the message."""
        self.begun.append(message_id)

    def end(self, errors: int) -> None:
        """Note how many handlers failed."""
        self.errors.append(errors)


@pytest.fixture
def backend() -> Iterator[EmbeddedMessagingBackend]:
    backend = EmbeddedMessagingBackend(port=0)
    backend.start()
    yield backend
    backend.cleanup()


def publish(
    backend: EmbeddedMessagingBackend, namespace: str, topic: str, body: bytes, ttl_ms: int = 0
) -> int:
    """Publish bytes as a message, and wait until they are stored; returns the id."""
    client, message_id = backend._open(), next_id(Priority.NORMAL)
    (number,) = client.open_topics([(namespace, topic)])
    client.outgoing.wait_stored(client.publish(pack_publish(number, message_id, body, ttl_ms)))
    return message_id


@pytest.mark.parametrize("garbage", GARBAGE, ids=len)
def test_who_looks_at_garbage_is_told(backend: EmbeddedMessagingBackend, garbage: bytes) -> None:
    """A handler may have its id; whatever else it asks for names message and topic."""
    box = Box()
    backend.subscribe(TOPIC, box)
    sent = publish(backend, SPACE, TOPIC, garbage)
    backend.store_message(SPACE, TOPIC, last := message("last"))
    wait_until(lambda: len(box.messages) == 2)
    found: Message = box.messages[0]
    assert found.id == sent
    assert found.topic_published_to == TOPIC
    for look in ("sender", "topics", "payload", "envelope"):
        with pytest.raises(ProtocolError, match=f"message {sent} on topic .* cannot be read"):
            getattr(found, look)
    assert repr(found) == f"<Message {sent} that cannot be read>"
    assert box.messages[1] == last


@pytest.mark.parametrize("garbage", GARBAGE, ids=len)
def test_garbage_in_history_is_left_out(
    backend: EmbeddedMessagingBackend, garbage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """And the log says so."""
    publish(backend, SPACE, TOPIC, garbage)
    backend.store_message(SPACE, TOPIC, last := message("last"))
    assert backend.get_messages_for_topic(TOPIC) == [last]
    assert "cannot be read, skipped" in caplog.text


@pytest.mark.parametrize("ttl_ms", [0, 60_000])
@pytest.mark.parametrize("garbage", GARBAGE, ids=len)
def test_an_agent_skips_garbage(
    garbage: bytes, ttl_ms: int, caplog: pytest.LogCaptureFixture
) -> None:
    """It is no failure of the agent, which handles what comes next; the log says so."""
    spec = AgentBuilder(Echo).set_id("echo").set_name("echo").build_spec()
    inbox, told = GuildTopics.get_agent_inbox("echo"), Watch()
    messaging = MessagingInterface(SPACE, MessagingConfig.of("embedded://localhost:0"))
    try:
        host = AgentHost(AgentLaunch(SPACE, "", spec, {}), messaging, told)
        host.start()
        messaging.start()
        assert isinstance(messaging.backend, EmbeddedMessagingBackend)
        bad = publish(messaging.backend, SPACE, f"{SPACE}:{inbox}", garbage, ttl_ms)
        good = Message(
            id_obj=ids.get_id(), sender=AgentTag("me"), topics=inbox, payload={"text": "good"}
        )
        messaging.publish(good)
        answers = GuildTopics.get_agent_inbox("me")
        wait_until(lambda: messaging.get_messages(answers))
        assert [m.payload for m in messaging.get_messages(answers)] == [{"text": "good"}]
        assert messaging.get_messages(GuildTopics.ERROR_TOPIC) == []
        assert told.begun == ([good.id] if ttl_ms else [bad, good.id])
        assert told.errors == [0] * len(told.begun)
        assert "cannot be read" in caplog.text
        host.stop()
    finally:
        messaging.close()
