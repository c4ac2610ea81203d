"""Agents that the contract suites launch; small, and importable in any process."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

from pydantic import BaseModel

from rustic_ai.core.guild.agent import Agent, JsonDict, ProcessContext, processor
from rustic_ai.core.guild.di.resolver import DependencyResolver
from rustic_ai.core.guild.spec import BaseAgentProps


class Number(BaseModel):
    """A question."""

    value: int


class Answer(BaseModel):
    """An answer, and who gave it from which process."""

    value: int
    agent: str
    pid: int


class FactorProps(BaseAgentProps):
    """Properties of `MultiplyingAgent`."""

    factor: int = 2


class MultiplyingAgent(Agent[FactorProps]):
    """Answers a number with its multiple; refuses negative ones."""

    @processor(Number)
    def multiply(self, ctx: ProcessContext[Number]) -> None:
        """Answer, or raise ValueError."""
        if ctx.payload.value < 0:
            raise ValueError(f"{ctx.payload.value} is negative")
        ctx.send(
            Answer(value=ctx.payload.value * self.config.factor, agent=self.name, pid=os.getpid())
        )


class AsyncAgent(Agent[BaseAgentProps]):
    """Answers from a coroutine, whose loop stays the same from message to message."""

    def __init__(self) -> None:
        self._lock: object = None

    async def on_start(self) -> None:
        """Make something that belongs to the loop."""
        import asyncio

        self._lock = asyncio.get_running_loop()

    @processor(Number)
    async def answer(self, ctx: ProcessContext[Number]) -> None:
        """Answer with 1 where the loop is that of `on_start`."""
        import asyncio

        await asyncio.sleep(0)
        same = asyncio.get_running_loop() is self._lock
        ctx.send(Answer(value=int(same), agent=self.name, pid=os.getpid()))


class DependentAgent(Agent[BaseAgentProps]):
    """Answers with a dependency."""

    @processor(Number, depends_on=["offset"])
    def add(self, ctx: ProcessContext[Number], offset: int) -> None:
        """Answer with the sum."""
        ctx.send(Answer(value=ctx.payload.value + offset, agent=self.name, pid=os.getpid()))


class RecordingResolver(DependencyResolver):
    """Resolves to a number, and writes down what happens to it."""

    def __init__(self, path: str, value: int = 0) -> None:
        self._path = Path(path)
        self._value = value

    def resolve(self, org_id: str, guild_id: str, agent_id: str) -> int:
        """Write down for whom it is."""
        self._note(f"resolve {org_id} {guild_id} {agent_id}")
        return self._value

    def close(self, value: int) -> None:
        """Write down the end."""
        self._note(f"close {value}")

    def _note(self, line: str) -> None:
        with self._path.open("a") as file:
            file.write(line + "\n")


class NeedsTwo(DependencyResolver):
    """Depends on 'two', which depends on 'one'."""

    depends_on = ("two",)

    def resolve(self, org_id: str, guild_id: str, agent_id: str) -> int:  # noqa: ARG002
        """Pass it on."""
        return int(self.dependencies["two"])


class NeedsOne(DependencyResolver):
    """Depends on 'one', which depends on 'two'."""

    depends_on = ("one",)

    def resolve(self, org_id: str, guild_id: str, agent_id: str) -> int:  # noqa: ARG002
        """Pass it on."""
        return int(self.dependencies["one"])


class LifecycleProps(BaseAgentProps):
    """Properties of `LifecycleAgent`."""

    path: str


class LifecycleAgent(Agent[LifecycleProps]):
    """Writes down its life."""

    def on_start(self) -> None:
        """Write 'start'."""
        self._note("start")

    @processor(JsonDict)
    def note(self, ctx: ProcessContext[JsonDict]) -> None:
        """Write what it gets, and answer."""
        self._note(str(ctx.payload["text"]))
        ctx.send_dict({"noted": True})

    def on_stop(self) -> None:
        """Write 'stop'."""
        self._note("stop")

    def _note(self, line: str) -> None:
        with Path(self.config.path).open("a") as file:
            file.write(line + "\n")


class RaisingAgent(Agent[BaseAgentProps]):
    """Its constructor raises."""

    def __init__(self) -> None:
        raise LookupError("no such table")


class ExitingAgent(Agent[BaseAgentProps]):
    """Its constructor leaves the program."""

    def __init__(self) -> None:
        sys.exit(3)


class HangingAgent(Agent[BaseAgentProps]):
    """Its constructor never returns."""

    def __init__(self) -> None:
        threading.Event().wait()


class DyingAgent(Agent[BaseAgentProps]):
    """Dies in its handler, the way it is told: {"how": "exit" | "os._exit" | "hang"}."""

    @processor(JsonDict)
    def die(self, ctx: ProcessContext[JsonDict]) -> None:
        """Die, or hang for ever."""
        how = ctx.payload["how"]
        if how == "exit":
            sys.exit(4)
        if how == "os._exit":
            os._exit(5)
        threading.Event().wait()
