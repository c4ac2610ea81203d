"""Parallel data processing: four workers, a partition each, and a coordinator that merges.

The data are the readings of a sensor, made up but always the same. Every worker summarises its
partition, the coordinator merges the summaries into the mean and deviation of all readings.
"""

from __future__ import annotations

import argparse
import math
import os
import random
from collections.abc import Iterable

from pydantic import BaseModel

from rustic_ai.core.guild import Agent, AgentBuilder, Guild, ProcessContext, agent
from rustic_ai.core.guild.execution.multiprocess import MultiProcessExecutionEngine
from rustic_ai.core.guild.system_messages import GuildFinished, GuildStarted
from rustic_ai.core.messaging.backend.embedded_backend import create_embedded_messaging_config


class Task(BaseModel):
    """How many readings every worker shall process."""

    rows: int


class Summary(BaseModel):
    """Count, mean and sum of squared deviations of some readings."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def merge(self, other: Summary) -> Summary:
        """Return the summary of both sets of readings (Chan's formula)."""
        count = self.count + other.count
        delta = other.mean - self.mean
        return Summary(
            count=count,
            mean=self.mean + delta * other.count / count,
            squares=self.squares + other.squares + delta**2 * self.count * other.count / count,
        )


def readings(partition: int, rows: int) -> Iterable[float]:
    """Produce the readings of a partition; the same every time."""
    source = random.Random(partition)
    return (source.gauss(20.0 + partition, 3.0) for _ in range(rows))


def summarise(values: Iterable[float]) -> Summary:
    """Summarise readings in one pass (Welford's method)."""
    count, mean, squares = 0, 0.0, 0.0
    for value in values:
        count += 1
        delta = value - mean
        mean += delta / count
        squares += delta * (value - mean)
    return Summary(count=count, mean=mean, squares=squares)


class DataProcessingAgent(Agent):
    """Summarises one partition."""

    @agent.processor(Task, depends_on=["partition_id"])
    def process(self, ctx: ProcessContext[Task], partition_id: int) -> None:
        ctx.send(summarise(readings(partition_id, ctx.payload.rows)))


class CoordinatorAgent(Agent):
    """Gives the task to all workers, and merges what comes back."""

    def __init__(self) -> None:
        self._merged = Summary()
        self._missing = self.get_dependency("partitions")

    @agent.processor(GuildStarted, depends_on=["rows"])
    def begin(self, ctx: ProcessContext[GuildStarted], rows: int) -> None:
        ctx.send(Task(rows=rows))

    @agent.processor(Summary)
    def merge(self, ctx: ProcessContext[Summary]) -> None:
        self._merged = self._merged.merge(ctx.payload)
        self._missing -= 1
        if self._missing == 0:
            ctx.finish_guild(self._merged.model_dump())


def parallel_data_processing(partitions: int, rows: int) -> GuildFinished:
    """Run the guild to its end."""
    guild_id = f"data_processing-{os.getpid()}"  # so that two runs do not share messages
    guild = Guild(guild_id=guild_id, messaging_config=create_embedded_messaging_config())
    engine = MultiProcessExecutionEngine(guild_id=guild_id, max_processes=partitions + 1)
    with guild:
        for i in range(partitions):
            worker_spec = (
                AgentBuilder()
                .set_name(f"data_worker_{i}")
                .set_description(f"Process data partition {i}")
                .set_class_name("DataProcessingAgent")
                .add_dependency("partition_id", i)
                .build_spec()
            )
            guild.launch_agent(worker_spec, execution_engine=engine)
        coordinator_spec = (
            AgentBuilder()
            .set_name("coordinator")
            .set_description("Coordinate data processing tasks")
            .set_class_name("CoordinatorAgent")
            .add_dependency("partitions", partitions)
            .add_dependency("rows", rows)
            .build_spec()
        )
        guild.launch_agent(coordinator_spec, execution_engine=engine)
        print(f"Running agents: {engine.get_engine_stats()['owned_agents_count']}")
        guild.announce_start()
        return guild.wait()


def main() -> None:
    """Process as much data as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--rows", type=int, default=250_000, help="readings in a partition")
    arguments = parser.parse_args()
    total = Summary(**parallel_data_processing(arguments.partitions, arguments.rows).result)
    deviation = math.sqrt(total.squares / total.count)
    print(f"{total.count} readings: mean {total.mean:.6f}, standard deviation {deviation:.6f}")


if __name__ == "__main__":
    main()
