"""What the specification's snippets take for granted: imports, agents, eight cores.

Each snippet is run word for word after this.
"""

from __future__ import annotations

import multiprocessing  # noqa: F401 - snippets use it
import time  # noqa: F401 - snippets use it
from typing import Any

from rustic_ai.core.guild import (
    Agent,
    AgentBuilder,
    AgentSpec,
    Guild,  # noqa: F401
    ProcessContext,
)
from rustic_ai.core.guild.agent import JsonDict, processor
from rustic_ai.core.guild.execution.multiprocess import (  # noqa: F401
    MultiProcessExecutionEngine,
)
from rustic_ai.core.messaging.backend.embedded_backend import (  # noqa: F401
    create_embedded_messaging_config,
)
from rustic_ai.core.messaging.core.messaging_config import MessagingConfig  # noqa: F401


def eight_cores() -> int:
    """Return what `multiprocessing.cpu_count` says on the machine that the snippets are for."""
    return 8


class ComputeAgent(Agent):
    """Sums its chunk."""

    @processor(JsonDict, depends_on=["data_chunk"])
    def compute(self, ctx: ProcessContext[JsonDict], data_chunk: list[int]) -> None:
        """Answer with the sum."""
        ctx.send_dict({"sum": sum(data_chunk)}, format="sum")


class DataProcessingAgent(Agent):
    """Knows its partition."""

    @processor(JsonDict, depends_on=["partition_id"])
    def process(self, ctx: ProcessContext[JsonDict], partition_id: int) -> None:
        """Answer with it."""
        ctx.send_dict({"partition": partition_id}, format="partition")


class CoordinatorAgent(Agent):
    """Listens."""


class MonteCarloWorkerAgent(Agent):
    """Knows its share of the samples."""

    @processor(JsonDict, depends_on=["worker_id", "num_samples"])
    def simulate(self, ctx: ProcessContext[JsonDict], worker_id: int, num_samples: int) -> None:
        """Answer with it."""
        ctx.send_dict({"worker": worker_id, "samples": num_samples}, format="share")


class ResultsAggregatorAgent(Agent):
    """Would add the results up."""


def create_cpu_intensive_agent_spec(name: str) -> AgentSpec:
    """Return the spec of an agent that sums a chunk."""
    builder: Any = AgentBuilder(ComputeAgent).set_name(name)
    spec: AgentSpec = builder.add_dependency("data_chunk", [1, 2, 3]).build_spec()
    return spec
