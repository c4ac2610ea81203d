"""Arrays, tables, bytes, models and pickles between real processes."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict

from rustic_ai.core.agents.testutils import EchoAgent
from rustic_ai.core.errors import AgentError, PayloadGoneError, PickleRefusedError
from rustic_ai.core.guild import Agent, Guild, ProcessContext
from rustic_ai.core.guild.agent import JsonDict, processor
from rustic_ai.core.guild.execution import MultiProcessExecutionEngine, SyncExecutionEngine
from rustic_ai.core.guild.topics import GuildTopics
from rustic_ai.core.messaging.core.message import Message
from rustic_ai.core.testing.waiting import wait_until
from tests.support import NO_MESSAGES, embedded, spec_of

numpy = pytest.importorskip("numpy")
TIMEOUT = 20.0
ROWS = 50_000
INBOX = GuildTopics.get_agent_inbox("a")


class Cloud(BaseModel):
    """A model with arrays."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    points: numpy.ndarray
    layers: dict[str, list[numpy.ndarray]] = {}
    pid: int = 0


@dataclasses.dataclass
class Series:
    """Knows nothing of us, like a data frame."""

    index: list[str]
    values: numpy.ndarray


class Worker(Agent):
    """Answers each kind in kind; refuses arrays that begin with a negative number."""

    @processor(numpy.ndarray)
    def double(self, ctx: ProcessContext[numpy.ndarray]) -> None:
        """Answer with twice the array."""
        if ctx.payload.size and ctx.payload.flat[0] < 0 and ctx.message.dead_letter is None:
            raise ValueError(f"begins with {ctx.payload.flat[0]}")
        result = ctx.allocate(ctx.payload.shape, ctx.payload.dtype)
        numpy.multiply(ctx.payload, 2, out=result)
        ctx.send(result)
        assert not result.flags.writeable
        assert not ctx.payload.flags.writeable

    @processor(memoryview)
    def reverse(self, ctx: ProcessContext[memoryview]) -> None:
        """Answer with the bytes from back to front."""
        assert ctx.payload.readonly
        ctx.send(ctx.payload[::-1])

    @processor(Cloud)
    def shift(self, ctx: ProcessContext[Cloud]) -> None:
        """Answer with points moved by one."""
        points = self.allocate(ctx.payload.points.shape, ctx.payload.points.dtype)
        numpy.add(ctx.payload.points, 1, out=points)
        ctx.send(Cloud(points=points, layers=ctx.payload.layers, pid=os.getpid()))

    @processor(JsonDict)
    def total(self, ctx: ProcessContext[JsonDict]) -> None:
        """Answer with the sum of an array in a dict, and the array backwards."""
        array = ctx.payload["array"]
        ctx.send_dict({"sum": float(array.sum()), "array": array[::-1]})

    @processor(Series, pickle=True)
    def next(self, ctx: ProcessContext[Series]) -> None:
        """Answer with a pickle."""
        assert not ctx.payload.values.flags.writeable
        ctx.send(Series(ctx.payload.index, ctx.payload.values + 1), pickle=True)


class Cautious(Agent):
    """Handles the class of what was pickled, and takes no pickles."""

    @processor(numpy.ndarray)
    def take(self, ctx: ProcessContext[numpy.ndarray]) -> None:
        """Answer."""
        ctx.send_dict({"took": ctx.payload.shape[0]})


class Watcher(Agent):
    """Looks at every message, and at no payload."""

    @processor(Message, predicate=lambda _, m: m.in_response_to is None)
    def note(self, ctx: ProcessContext[Any]) -> None:
        """Answer with what the message is."""
        ctx.send_dict({"format": ctx.message.format, "payload": ctx.message.to_dict()["payload"]})


@pytest.fixture(params=["processes", "in this process"])
def guild(request: pytest.FixtureRequest, free_port: int) -> Iterator[Guild]:
    """Give a guild without agents."""
    if request.param == "processes":
        guild = Guild("g", MultiProcessExecutionEngine("g", 4), embedded(free_port))
    else:
        guild = Guild("g", SyncExecutionEngine("g"), NO_MESSAGES)
    with guild:
        yield guild


@pytest.fixture
def worker(guild: Guild) -> Guild:
    """Give one with a worker."""
    guild.launch_agent(spec_of(Worker, "a"))
    return guild


def test_arrays_there_and_back(worker: Guild) -> None:
    """An array is computed on in another process, also one that was filled in place here."""
    mine = worker.allocate((ROWS, 3))
    mine[:] = numpy.arange(3.0)
    for sent in (mine, numpy.arange(5, dtype=">i4"), numpy.ones((4, 6), order="F")[:, ::2]):
        answer = worker.request(sent, timeout=TIMEOUT)
        numpy.testing.assert_array_equal(answer.payload, sent * 2)
        assert answer.payload.dtype == sent.dtype
    assert not mine.flags.writeable


def test_what_is_done_to_an_array_after_it_was_sent_is_not_seen(worker: Guild) -> None:
    """A message is what it was when it was sent."""
    array = numpy.ones(ROWS)
    with worker.collect(GuildTopics.DEFAULT_TOPICS[0]) as box:
        for n in range(10):
            array[:] = n
            worker.publish(array)
        array[:] = -1
        found = [m for m in box.take(20, TIMEOUT) if m.in_response_to is not None]
    assert [float(m.payload[-1]) for m in found] == [2.0 * n for n in range(10)]


def test_bytes(worker: Guild) -> None:
    """Bytes of any size, which are not taken for anything else."""
    for sent in (b"", b"abc", os.urandom(300_001)):
        assert worker.request(sent, timeout=TIMEOUT).payload == sent[::-1]


def test_models_and_dicts_with_arrays(worker: Guild) -> None:
    """Arrays in fields, lists and dicts are where they were."""
    points = numpy.arange(ROWS * 3.0).reshape(-1, 3)
    sent = Cloud(points=points, layers={"a": [points[0], points[:, 1]]})
    answer = worker.request(sent, timeout=TIMEOUT)
    got = Cloud.model_validate(answer.payload)
    numpy.testing.assert_array_equal(got.points, points + 1)
    numpy.testing.assert_array_equal(got.layers["a"][1], points[:, 1])
    answer = worker.request({"array": points[:, 0], "n": 1}, timeout=TIMEOUT)
    assert answer.payload["sum"] == float(points[:, 0].sum())
    numpy.testing.assert_array_equal(answer.payload["array"], points[::-1, 0])


def test_pickles_with_their_arrays(worker: Guild) -> None:
    """An object of any class, where both ends ask for it."""
    sent = Series(["a"] * 3, numpy.arange(ROWS))
    answer = worker.request(sent, pickle=True, timeout=TIMEOUT)
    with pytest.raises(PickleRefusedError):
        _ = answer.payload
    got = worker.unpickle(answer)
    assert got.index == sent.index
    numpy.testing.assert_array_equal(got.values, sent.values + 1)


def test_pickles_that_nobody_asked_for(guild: Guild) -> None:
    """The handler is not called: it is an error and a dead letter. Who does not look gets it."""
    guild.launch_agents([spec_of(Cautious, "a"), spec_of(Watcher, "w")])
    with pytest.raises(AgentError, match=r"PickleRefusedError: .* numpy\.ndarray is refused"):
        guild.request(numpy.array([None]), INBOX, pickle=True, timeout=TIMEOUT)
    assert guild.request(numpy.arange(3), INBOX, timeout=TIMEOUT).payload == {"took": 3}
    (dead,) = guild.get_dead_letters()
    assert dead.format == "numpy.ndarray"
    inbox = GuildTopics.get_agent_inbox("w")
    told = guild.request(Series([], numpy.arange(3)), inbox, pickle=True, timeout=TIMEOUT).payload
    assert told["format"].endswith("Series")
    assert told["payload"]["pickle"].endswith(" bytes")
    told = guild.request(numpy.zeros((ROWS, 2)), inbox, timeout=TIMEOUT).payload
    assert told["payload"] == {"array": f"float64[{ROWS}, 2]"}


def test_an_array_whose_handler_fails(worker: Guild) -> None:
    """It is a dead letter with the array in it, and is handled when it is given once more."""
    sent = numpy.full(ROWS, -3)
    with pytest.raises(AgentError, match="ValueError: begins with -3"):
        worker.request(sent, INBOX, timeout=TIMEOUT)
    wait_until(worker.get_dead_letters)
    (dead,) = worker.get_dead_letters()
    numpy.testing.assert_array_equal(dead.payload, sent)
    with worker.collect(GuildTopics.get_agent_inbox(dead.sender.id or "")) as box:
        worker.replay(dead)
        (answer,) = box.take(1, TIMEOUT)
    numpy.testing.assert_array_equal(answer.payload, sent * 2)


def test_history_of_arrays(free_port: int) -> None:
    """What was sent with `store` is there for late readers; anything else is gone, and says so."""
    big = numpy.arange(ROWS)
    with Guild("g", messaging_config=embedded(free_port)) as guild:
        for store in (True, False):
            guild.publish(big, "archive", store=store)
        stored, other = guild.get_messages("archive")
        numpy.testing.assert_array_equal(stored.payload, big)
        with pytest.raises(PayloadGoneError, match="store=True"):
            _ = other.payload
        assert other.to_dict()["payload"] == {"array": f"int64[{ROWS}]"}


def test_echoes(guild: Guild) -> None:
    """An agent that knows nothing of kinds can send on what it got."""
    guild.launch_agent(spec_of(EchoAgent, "a"))
    array = numpy.arange(ROWS, dtype="float32")
    numpy.testing.assert_array_equal(guild.request(array, timeout=TIMEOUT).payload, array)
    for sent in ({"points": array}, Cloud(points=array)):
        answer = guild.request(sent, timeout=TIMEOUT)
        numpy.testing.assert_array_equal(answer.payload["points"], array)


def test_arrow_tables(guild: Guild) -> None:
    """Tables and batches, alone and in a dict, come back as they were."""
    pyarrow = pytest.importorskip("pyarrow")
    guild.launch_agent(spec_of(EchoAgent, "a"))
    table = pyarrow.table({"n": range(ROWS), "s": [str(n) for n in range(ROWS)]})
    assert guild.request(table, timeout=TIMEOUT).payload.equals(table)
    batch = table.to_batches()[0]
    assert guild.request(batch, timeout=TIMEOUT).payload.equals(batch)
    assert guild.request({"t": table}, timeout=TIMEOUT).payload["t"].equals(table)
