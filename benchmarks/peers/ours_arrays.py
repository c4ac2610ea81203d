"""Agents that send arrays, and look at them."""

from __future__ import annotations

import numpy as np
from pydantic import BaseModel

from benchmarks.messaging.agent_roles import PINGS, PONGS, RESULTS, Trips
from benchmarks.peers.peer import now
from rustic_ai.core.guild import Agent, ProcessContext, agent
from rustic_ai.core.guild.agent import JsonDict


class Offers(BaseModel):
    """Asks for arrays to be sent, one after the other."""

    size: int
    n: int


class Last(BaseModel):
    """Answers an array with its last number."""

    number: int


class Offerer(Agent):
    """Sends arrays as bytes in a dict, each when the one before was answered."""

    def __init__(self) -> None:
        self._array, self._left, self._sent_at = np.ones(0), 0, 0.0
        self._seconds: list[float] = []

    @agent.processor(Offers)
    def begin(self, ctx: ProcessContext[Offers]) -> None:
        """Send the first."""
        self._array, self._left = np.ones(ctx.payload.size // 8), ctx.payload.n
        self._send(ctx)

    @agent.processor(Last)
    def take(self, ctx: ProcessContext[Last]) -> None:
        """Note how long it took, and send the next."""
        self._seconds.append(now() - self._sent_at)
        assert ctx.payload.number == self._left
        self._left -= 1
        if self._left:
            self._send(ctx)
        else:
            ctx.send(Trips(seconds=self._seconds), topics=RESULTS)

    def _send(self, ctx: ProcessContext[Offers] | ProcessContext[Last]) -> None:
        self._array[-1] = self._left
        self._sent_at = now()
        ctx.send_dict({"data": self._array.tobytes()}, topics=PINGS)


class Looker(Agent):
    """Looks at the last number of each array."""

    @agent.processor(JsonDict)
    def look(self, ctx: ProcessContext[JsonDict]) -> None:
        """Answer with it."""
        array = np.frombuffer(ctx.payload["data"])
        ctx.send(Last(number=int(array[-1])), topics=PONGS)
