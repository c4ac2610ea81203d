"""Messages joined from templates are those that would have been composed."""

from __future__ import annotations

import copy
import pickle
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel
from pydantic_core import PydanticSerializationError

from rustic_ai.core.guild.agent.outbox import Outbox
from rustic_ai.core.messaging import AgentTag, Message, Priority
from rustic_ai.core.messaging.core import templates
from rustic_ai.core.messaging.core.codec import decode_message, encode_message
from rustic_ai.core.messaging.core.message import EncodedMessage, WrappedMessage
from rustic_ai.core.messaging.core.message_id import GemstoneGenerator, id_priority, next_id
from tests.unit.messaging.parcels import Post

ids = GemstoneGenerator()


class Note(BaseModel):
    """A model."""

    text: str


class Other(BaseModel):
    """Another one."""

    text: str


class Loose(BaseModel):
    """A model that may carry anything."""

    value: Any


class Unfinished(BaseModel):
    """A model with a field whose class comes later."""

    late: Later | None = None


class Later(BaseModel):
    """That class."""


def question(**fields: Any) -> Message:
    """Return a message to answer."""
    priority = fields.pop("priority", Priority.NORMAL)
    traceparent = fields.pop("traceparent", None)
    options: dict[str, Any] = {"sender": AgentTag("q"), "topics": "t", "payload": {}, **fields}
    message = Message(id_obj=ids.get_id(priority), **options)
    envelope = msgspec.structs.replace(message.envelope, traceparent=traceparent)
    return Message.from_envelope(envelope, None)


def assert_as_composed(sent: Message, outbox: Outbox, *arguments: Any, **options: Any) -> None:
    """Compare a message, joined from a template, with one that is composed of the same."""
    assert type(sent) is EncodedMessage
    composed = outbox.compose(*arguments, **options)
    thread = composed.envelope.thread
    same = msgspec.structs.replace(
        composed.envelope,
        id=sent.id,
        thread=(sent.id,) if thread == (composed.id,) else thread,
    )
    assert encode_message(sent) == encode_message(Message.from_envelope(same, None))
    assert decode_message(encode_message(sent), "t").envelope == same
    assert sent.envelope == same
    assert (sent.topics, sent.sender, sent.payload) == (same.topics, same.sender, composed.payload)


causes = st.none() | st.builds(
    question,
    priority=st.sampled_from(Priority),
    thread=st.lists(st.integers(0, (1 << 64) - 1), min_size=1, max_size=20) | st.none(),
    traceparent=st.none() | st.text(),
)
topics = st.text(min_size=1) | st.lists(st.text(min_size=1), min_size=1, max_size=20).map(tuple)


@given(topics, causes, st.lists(st.text(), min_size=2))
@example("t", None, ["a", "b" * 244, "c" * 245, "d" * ((1 << 16) - 12), "e" * ((1 << 16) - 11)])
@example("t", None, ["a", "b" * 5_000_000])
def test_what_is_joined_is_what_would_be_composed(
    topics: str | tuple[str, ...], cause: Message | None, texts: list[str]
) -> None:
    """The bytes are the same, whatever the topics, what is answered, and the size."""
    post = Post()
    outbox = Outbox(post)
    for text in texts:
        outbox.post(Note(text=text), topics, cause=cause)
    assert type(post.sent[0]) is WrappedMessage
    for message, text in zip(post.sent[1:], texts[1:], strict=True):
        assert_as_composed(message, outbox, Note(text=text), topics, cause=cause)


@given(st.lists(st.tuples(st.sampled_from([Note, Other]), st.sampled_from("tu"), causes)))
def test_one_sender_joins_messages_of_many_kinds(
    kinds: list[tuple[type[Note | Other], str, Message | None]],
) -> None:
    """Neither class, nor topic, nor what is answered is taken over from the message before."""
    post = Post()
    outbox = Outbox(post)
    learnt = set()
    for model, topic, cause in kinds:
        outbox.post(model(text="x"), topic, cause=cause)
        if (model, topic) in learnt:
            assert_as_composed(post.sent[-1], outbox, model(text="x"), topic, cause=cause)
        learnt.add((model, topic))


def test_lists_and_tuples_of_topics_are_the_same() -> None:
    """One topic in a list is learnt as such, too."""
    post = Post()
    outbox = Outbox(post)
    for to in (["t", "u"], ("t", "u"), ["t"]):
        outbox.post(Note(text="x"), to)
    assert [type(m) for m in post.sent] == [WrappedMessage, EncodedMessage, WrappedMessage]
    assert post.sent[1].topics == ("t", "u")


@pytest.mark.parametrize(
    "options",
    [
        {"format": "mine"},
        {"priority": Priority.URGENT},
        {"recipients": [AgentTag("b")]},
        {"ttl": 1.0},
        {"is_error": True},
    ],
)
def test_what_is_not_plain_is_composed(options: dict[str, Any]) -> None:
    """What a template does not say is not lost, and not learnt."""
    post = Post()
    outbox = Outbox(post)
    outbox.post(Note(text="x"), "t")
    outbox.post(Note(text="x"), "t", **options)
    outbox.post(Note(text="x"), "t")
    assert [type(m) for m in post.sent] == [WrappedMessage, WrappedMessage, EncodedMessage]
    composed = outbox.compose(Note(text="x"), "t", **options).envelope
    assert msgspec.structs.replace(composed, id=1, thread=()) == msgspec.structs.replace(
        post.sent[1].envelope, id=1, thread=()
    )
    assert id_priority(post.sent[1].id) == options.get("priority", Priority.NORMAL)
    assert_as_composed(post.sent[2], outbox, Note(text="x"), "t")


def test_a_payload_that_does_not_fit_is_composed() -> None:
    """A model that is learnt with one value may come with one that is no JSON."""
    post = Post()
    outbox = Outbox(post)
    for value in (1, memoryview(b"x" * 1000), 2):
        outbox.post(Loose(value=value), "t")
    assert [type(m) for m in post.sent] == [WrappedMessage, WrappedMessage, EncodedMessage]
    assert decode_message(encode_message(post.sent[1]), "t").payload["value"] == b"x" * 1000
    with pytest.raises(PydanticSerializationError, match="object"):
        outbox.post(Loose(value=object()), "t")


def test_a_model_that_was_not_complete_is_learnt() -> None:
    """With its first message it becomes so."""
    assert not Unfinished.__pydantic_complete__
    post = Post()
    outbox = Outbox(post)
    for _ in range(2):
        outbox.post(Unfinished.model_construct(late=None), "t")
    assert_as_composed(post.sent[1], outbox, Unfinished(late=None), "t")


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))]
)
def test_a_joined_message_can_be_copied(copied: Callable[[Message], Message]) -> None:
    """What `send` returns may be kept, copied and pickled as any other message."""
    post = Post()
    outbox = Outbox(post)
    for _ in range(2):
        outbox.post(Note(text="x"), "t", cause=question(thread=[5]))
    sent = post.sent[1]
    assert type(sent) is EncodedMessage
    sent.attempt = 2
    again = copied(sent)
    assert (again, again.envelope, again.attempt) == (sent, sent.envelope, 2)
    assert encode_message(again) == encode_message(sent)


def test_topics_without_end_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names of topics do not fill the memory of a sender."""
    monkeypatch.setattr(templates, "_MOST", 4)
    post = Post()
    outbox = Outbox(post)
    for topic in [*"abcde", "a", "e"]:
        outbox.post(Note(text="x"), topic)
    assert [type(m) is EncodedMessage for m in post.sent] == [False] * 6 + [True]


def test_threads_share_a_sender_and_ids() -> None:
    """No message is joined from two, and no id is given out twice, or too early."""
    post = Post()
    outbox = Outbox(post)
    questions: Sequence[Message | None] = [None, question(thread=[5]), question()]
    drawn: list[list[int]] = [[] for _ in questions]

    def send(cause: Message | None, into: list[int]) -> None:
        for _ in range(3_000):
            outbox.post(Note(text="x"), "t", cause=cause)
            into.append(next_id(Priority.NORMAL))

    outbox.post(Note(text="x"), "t")
    pause = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [
            threading.Thread(target=send, args=(cause, into))
            for cause, into in zip(questions, drawn, strict=True)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(pause)
    threads_of = {m.id: m.thread for m in questions if m is not None}
    for message in post.sent[1:]:
        assert type(message) is EncodedMessage
        assert message.thread == threads_of.get(message.in_response_to or 0, (message.id,))
    used = [m.id for m in post.sent] + [i for some in drawn for i in some]
    assert len(set(used)) == len(used)
    for some in drawn:
        assert some == sorted(some)
