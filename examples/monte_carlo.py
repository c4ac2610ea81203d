"""Monte Carlo: workers throw darts at a square, an aggregator estimates pi from their hits.

Prints the estimate with its standard error, and fails where pi is more than five of them away.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
import random
import sys

from pydantic import BaseModel

from rustic_ai.core.guild import Agent, AgentBuilder, Guild, ProcessContext, agent
from rustic_ai.core.guild.execution.multiprocess import MultiProcessExecutionEngine
from rustic_ai.core.guild.system_messages import GuildStarted
from rustic_ai.core.messaging.backend.embedded_backend import create_embedded_messaging_config


class Hits(BaseModel):
    """How many of a worker's darts hit the quarter of a circle."""

    worker_id: int
    samples: int
    inside: int


class Estimate(BaseModel):
    """Pi, and how sure that is."""

    pi: float
    standard_error: float
    samples: int
    workers: list[int]

    @classmethod
    def of(cls, results: list[Hits]) -> Estimate:
        """Pool the darts of all workers; the error is that of a binomial share."""
        samples = sum(hits.samples for hits in results)
        share = sum(hits.inside for hits in results) / samples
        return cls(
            pi=4 * share,
            standard_error=4 * math.sqrt(share * (1 - share) / samples),
            samples=samples,
            workers=sorted(hits.worker_id for hits in results),
        )


class MonteCarloWorkerAgent(Agent):
    """Throws its darts when the guild is complete."""

    @agent.processor(GuildStarted, depends_on=["worker_id", "num_samples"])
    def simulate(self, ctx: ProcessContext[GuildStarted], worker_id: int, num_samples: int) -> None:
        throw = random.Random(worker_id).random  # a stream of its own for every worker
        inside = sum(throw() ** 2 + throw() ** 2 <= 1.0 for _ in range(num_samples))
        ctx.send(Hits(worker_id=worker_id, samples=num_samples, inside=inside))


class ResultsAggregatorAgent(Agent):
    """Waits for every worker, then finishes the guild with the estimate."""

    def __init__(self) -> None:
        self._results: list[Hits] = []

    @agent.processor(Hits, depends_on=["expected_workers"])
    def add(self, ctx: ProcessContext[Hits], expected_workers: int) -> None:
        self._results.append(ctx.payload)
        ctx.report_progress(len(self._results), expected_workers, "workers")
        if len(self._results) == expected_workers:
            ctx.finish_guild(Estimate.of(self._results).model_dump())


def monte_carlo_simulation(
    num_workers: int | None = None, num_samples: int = 1_000_000
) -> tuple[Guild, MultiProcessExecutionEngine]:
    """Launch the workers and the aggregator."""
    if num_workers is None:
        num_workers = multiprocessing.cpu_count()
    guild_id = f"monte_carlo-{os.getpid()}"  # so that two runs do not share messages
    guild = Guild(guild_id=guild_id, messaging_config=create_embedded_messaging_config())
    # One more than there are workers: the aggregator is an agent, too, if an idle one.
    engine = MultiProcessExecutionEngine(guild_id=guild_id, max_processes=num_workers + 1)
    for i in range(num_workers):
        worker_spec = (
            AgentBuilder()
            .set_name(f"simulation_worker_{i}")
            .set_class_name("MonteCarloWorkerAgent")
            .add_dependency("worker_id", i)
            .add_dependency("num_samples", num_samples // num_workers)
            .build_spec()
        )
        guild.launch_agent(worker_spec, execution_engine=engine)
    aggregator_spec = (
        AgentBuilder()
        .set_name("results_aggregator")
        .set_class_name("ResultsAggregatorAgent")
        .add_dependency("expected_workers", num_workers)
        .build_spec()
    )
    guild.launch_agent(aggregator_spec, execution_engine=engine)
    return guild, engine


def main() -> None:
    """Estimate pi with as many workers and darts as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=None, help="default: the number of CPUs")
    parser.add_argument("--samples", type=int, default=1_000_000, help="darts of all workers")
    arguments = parser.parse_args()
    guild, _ = monte_carlo_simulation(arguments.workers, arguments.samples)
    with guild:
        guild.announce_start()
        estimate = Estimate(**guild.wait().result)
    errors = abs(estimate.pi - math.pi) / estimate.standard_error
    print(f"{estimate.samples} samples from workers {estimate.workers}")
    print(f"pi = {estimate.pi:.6f} +- {estimate.standard_error:.6f}")
    print(f"off by {errors:.2f} standard errors")
    if errors > 5:
        sys.exit("that is too far: the simulation is wrong")


if __name__ == "__main__":
    main()
