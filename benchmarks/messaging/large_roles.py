"""Agents that hand large arrays to each other, one at a time."""

from __future__ import annotations

import time

import numpy as np
from pydantic import BaseModel

from benchmarks.messaging.agent_roles import RESULTS, Trips
from benchmarks.peers.looks import Look, number_of, numbered
from rustic_ai.core.guild import Agent, ProcessContext, agent

ARRAYS, NUMBERS = "arrays", "numbers"


class Offers(BaseModel):
    """Asks for `n` arrays of `size` bytes; `in_place`: each is made where it is sent from."""

    n: int
    size: int
    in_place: bool


class LookAs(BaseModel):
    """Says what to do with arrays."""

    look: Look


class Number(BaseModel):
    """What a receiver has seen."""

    number: float


class Offerer(Agent):
    """Sends an array, and the next one when it hears what came of it.

    The time of a trip begins when the array is complete and ends with the answer.
    """

    def __init__(self) -> None:
        self._left, self._sent_at = 0, 0.0
        self._wanted = Offers(n=0, size=8, in_place=False)
        self._array = np.empty(0)
        self._seconds: list[float] = []

    @agent.processor(Offers)
    def begin(self, ctx: ProcessContext[Offers]) -> None:
        """Send the first."""
        self._wanted, self._left, self._seconds = ctx.payload, ctx.payload.n, []
        if not ctx.payload.in_place:
            self._array = numbered(ctx.payload.size)
        self._send(ctx)

    @agent.processor(Number)
    def go_on(self, ctx: ProcessContext[Number]) -> None:
        """Note how long it took, and send the next."""
        self._seconds.append(time.perf_counter() - self._sent_at)
        if ctx.payload.number != self._left:
            raise ValueError(f"{ctx.payload.number} came of the array with number {self._left}")
        self._left -= 1
        if self._left:
            self._send(ctx)
        else:
            ctx.send(Trips(seconds=self._seconds), topics=RESULTS)

    def _send(self, ctx: ProcessContext[Offers] | ProcessContext[Number]) -> None:
        in_place = self._wanted.in_place
        array = ctx.allocate(self._wanted.size // 8) if in_place else self._array
        array[-1] = self._left
        self._sent_at = time.perf_counter()
        ctx.send(array, topics=ARRAYS)


class Looker(Agent):
    """Looks at arrays."""

    def __init__(self) -> None:
        self._look: Look = "last"

    @agent.processor(LookAs)
    def learn(self, ctx: ProcessContext[LookAs]) -> None:
        """Note how."""
        self._look = ctx.payload.look
        ctx.send(Trips(seconds=[]), topics=RESULTS)

    @agent.processor(np.ndarray)
    def look(self, ctx: ProcessContext[np.ndarray]) -> None:
        """Answer with the number of the array."""
        ctx.send(Number(number=number_of(ctx.payload, self._look)), topics=NUMBERS)
