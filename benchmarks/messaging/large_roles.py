"""Agents that hand large arrays to each other, one at a time."""

from __future__ import annotations

import time

import numpy as np
from pydantic import BaseModel

from benchmarks.messaging.agent_roles import RESULTS, Trips
from rustic_ai.core.guild import Agent, ProcessContext, agent

ARRAYS, SUMS = "arrays", "sums"


class Feed(BaseModel):
    """Asks for `n` arrays of `size` bytes; `in_place`: each is made where it is sent from."""

    n: int
    size: int
    in_place: bool


class Eaten(BaseModel):
    """What the receiver has made of an array."""

    value: float


class Feeder(Agent):
    """Sends an array, and the next one when it hears what came of it.

    The time of a trip begins when the array is complete and ends with the answer: where it is
    written in place, filling it is the producer's own work, not part of the trip.
    """

    def __init__(self) -> None:
        self._left, self._sent_at = 0, 0.0
        self._told = Feed(n=0, size=8, in_place=False)
        self._array = np.empty(0)
        self._seconds: list[float] = []

    @agent.processor(Feed)
    def begin(self, ctx: ProcessContext[Feed]) -> None:
        """Send the first."""
        self._told, self._left, self._seconds = ctx.payload, ctx.payload.n, []
        self._array = np.random.default_rng(7).random(ctx.payload.size // 8)
        self._send(ctx)

    @agent.processor(Eaten)
    def go_on(self, ctx: ProcessContext[Eaten]) -> None:
        """Note how long it took, and send the next."""
        self._seconds.append(time.perf_counter() - self._sent_at)
        expected = float(self._left) if self._told.in_place else float(self._array.sum())
        if abs(ctx.payload.value - expected) > 1e-9 * abs(expected):
            raise ValueError(f"{ctx.payload.value} came of an array whose sum is {expected}")
        self._left -= 1
        if self._left:
            self._send(ctx)
        else:
            ctx.send(Trips(seconds=self._seconds), topics=RESULTS)

    def _send(self, ctx: ProcessContext[Feed] | ProcessContext[Eaten]) -> None:
        array = self._array
        if self._told.in_place:
            array = ctx.allocate(self._told.size // 8)
            array[-1] = self._left
        self._sent_at = time.perf_counter()
        ctx.send(array, topics=ARRAYS)


class Adder(Agent):
    """Sums what it gets: every byte is read."""

    @agent.processor(np.ndarray)
    def add(self, ctx: ProcessContext[np.ndarray]) -> None:
        """Answer with the sum."""
        ctx.send(Eaten(value=float(ctx.payload.sum())), topics=SUMS)


class Peeker(Agent):
    """Reads the last number of what it gets."""

    @agent.processor(np.ndarray)
    def peek(self, ctx: ProcessContext[np.ndarray]) -> None:
        """Answer with it."""
        ctx.send(Eaten(value=float(ctx.payload[-1])), topics=SUMS)
