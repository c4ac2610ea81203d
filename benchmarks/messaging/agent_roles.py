"""Agents that send, receive and answer as fast as they can."""

from __future__ import annotations

import threading
import time

from pydantic import BaseModel

from benchmarks.messaging.processes import now
from rustic_ai.core.guild import Agent, ProcessContext, agent

ITEMS, RESULTS, PINGS, PONGS = "items", "results", "pings", "pongs"


class Item(BaseModel):
    """What flows."""

    number: int
    text: str


class Begin(BaseModel):
    """Asks for items, from a thread beside the handlers or from within them."""

    n: int
    size: int
    free: bool
    wanted: int


class Expect(BaseModel):
    """Says how many items a sink gets."""

    n: int


class Tally(BaseModel):
    """Who did how much, from when to when; `cpu` in seconds."""

    role: str
    n: int
    begun: float
    ended: float
    cpu: float


class Round(BaseModel):
    """A ping, or the pong that answers it."""

    number: int
    text: str


class Volley(BaseModel):
    """Asks for a number of round trips."""

    n: int
    size: int


class Trips(BaseModel):
    """Seconds that each round trip took."""

    seconds: list[float]


class Source(Agent):
    """Sends items."""

    def __init__(self) -> None:
        self._sent, self._begun, self._used = 0, 0.0, 0.0

    @agent.processor(Begin)
    def begin(self, ctx: ProcessContext[Begin]) -> None:
        """Send as asked."""
        told = ctx.payload
        if not self._begun:
            self._begun, self._used = now(), time.process_time()
        if told.free:
            threading.Thread(target=self._send_free, args=(told,)).start()
            return
        text, send = "x" * told.size, ctx.send
        for number in range(told.n):
            send(Item(number=number, text=text), topics=ITEMS)
        self._sent += told.n
        if self._sent == told.wanted:
            self._tell()

    def _send_free(self, told: Begin) -> None:
        text, publish = "x" * told.size, self.publish
        for number in range(told.n):
            publish(Item(number=number, text=text), ITEMS)
        self._sent = told.n
        self._tell()

    def _tell(self) -> None:
        cpu = time.process_time() - self._used
        self.publish(
            Tally(role="source", n=self._sent, begun=self._begun, ended=now(), cpu=cpu), RESULTS
        )


class Sink(Agent):
    """Counts items."""

    def __init__(self) -> None:
        self._wanted, self._got, self._begun, self._used = 0, 0, 0.0, 0.0

    @agent.processor(Expect)
    def expect(self, ctx: ProcessContext[Expect]) -> None:
        """Note how many there will be."""
        self._wanted = ctx.payload.n
        ctx.send(Tally(role="waiting", n=0, begun=0, ended=0, cpu=0), topics=RESULTS)

    @agent.processor(Item)
    def take(self, ctx: ProcessContext[Item]) -> None:
        """Count one, and tell at the last."""
        self._got += 1
        if self._got == 1:
            self._begun, self._used = now(), time.process_time()
        if self._got == self._wanted:
            cpu = time.process_time() - self._used
            ctx.send(
                Tally(role="sink", n=self._got, begun=self._begun, ended=now(), cpu=cpu),
                topics=RESULTS,
            )


class Pinger(Agent):
    """Sends a ping, and the next one when its pong is there."""

    def __init__(self) -> None:
        self._left, self._text, self._sent_at = 0, "", 0.0
        self._seconds: list[float] = []

    @agent.processor(Volley)
    def begin(self, ctx: ProcessContext[Volley]) -> None:
        """Send the first."""
        self._left, self._text, self._seconds = ctx.payload.n, "x" * ctx.payload.size, []
        self._sent_at = time.perf_counter()
        ctx.send(Round(number=0, text=self._text), topics=PINGS)

    @agent.processor(Round)
    def take(self, ctx: ProcessContext[Round]) -> None:
        """Note how long it took, and send the next."""
        at = time.perf_counter()
        self._seconds.append(at - self._sent_at)
        self._left -= 1
        if self._left:
            self._sent_at = time.perf_counter()
            ctx.send(Round(number=self._left, text=self._text), topics=PINGS)
        else:
            ctx.send(Trips(seconds=self._seconds), topics=RESULTS)


class Ponger(Agent):
    """Answers pings."""

    @agent.processor(Round)
    def answer(self, ctx: ProcessContext[Round]) -> None:
        """Send the same back."""
        ctx.send(ctx.payload, topics=PONGS)
