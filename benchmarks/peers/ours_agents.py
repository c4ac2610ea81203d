"""Agents that do what they are asked; loads no more than a small agent needs."""

from __future__ import annotations

import os
import time

from pydantic import BaseModel

from benchmarks.messaging.agent_roles import RESULTS
from benchmarks.peers import jobs
from rustic_ai.core.guild import Agent, ProcessContext, agent


class Hello(BaseModel):
    """Asks who is there."""


class Here(BaseModel):
    """Says it."""

    pid: int


class Spin(BaseModel):
    """Asks to compute without end."""


class Nap(BaseModel):
    """Asks to take so many seconds."""

    number: int
    seconds: float


class Rested(BaseModel):
    """Says that it is done."""

    number: int
    pid: int


class Darts(BaseModel):
    """Asks for a part of a Monte Carlo simulation."""

    seed: int
    darts: int


class Hits(BaseModel):
    """Its result."""

    inside: int


class Worker(Agent):
    """Does what it is asked, and tells."""

    @agent.processor(Hello)
    def greet(self, ctx: ProcessContext[Hello]) -> None:
        """Say the pid."""
        ctx.send(Here(pid=os.getpid()), topics=RESULTS)

    @agent.processor(Spin)
    def spin(self, ctx: ProcessContext[Spin]) -> None:  # noqa: ARG002 - what a processor gets
        """Compute without end."""
        jobs.spin()

    @agent.processor(Nap)
    def nap(self, ctx: ProcessContext[Nap]) -> None:
        """Take time."""
        time.sleep(ctx.payload.seconds)
        ctx.send(Rested(number=ctx.payload.number, pid=os.getpid()), topics=RESULTS)

    @agent.processor(Darts)
    def throw(self, ctx: ProcessContext[Darts]) -> None:
        """Throw darts."""
        inside = jobs.monte_carlo((ctx.payload.seed, ctx.payload.darts))
        ctx.send(Hits(inside=inside), topics=RESULTS)
