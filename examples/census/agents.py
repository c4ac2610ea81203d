"""The agents of the census: a coordinator that hands out files, workers that measure them.

A worker that has nothing to do says so, and gets the next batch; so a fast worker, or one that
met easy files, gets more of them.
"""

from __future__ import annotations

import time
from collections import deque
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from examples.census.files import batches, python_files, standard_library
from examples.census.measures import ModuleMeasures, Unparsable, measure_file
from examples.census.results import Census
from rustic_ai.core.guild import Agent, BaseAgentProps, GuildTopics, ProcessContext
from rustic_ai.core.guild.agent import processor
from rustic_ai.core.guild.system_messages import ErrorMessage, GuildStarted


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True)


class WorkWanted(_Message):
    """A worker has nothing to do."""


class Batch(_Message):
    """Files for one worker, relative to the folder."""

    folder: str
    paths: tuple[str, ...]


class BatchMeasured(_Message):
    """What a worker found in a batch; its sender wants the next."""

    modules: tuple[ModuleMeasures, ...]
    unparsable: tuple[Unparsable, ...]


class CoordinatorProps(BaseAgentProps):
    """Properties of `CensusCoordinator`."""

    folder: Path = Field(default_factory=standard_library)
    top: int | None = Field(default=None, ge=1, description="Modules in the result; default: all.")


class CensusCoordinator(Agent[CoordinatorProps]):
    """Hands out the files of a folder, and finishes the guild with the census of them.

    Listens to the error topic, so that a failing worker ends the guild instead of leaving it to
    wait for the batch.
    """

    def __init__(self) -> None:
        folder = self.config.folder
        files = python_files(folder)
        self._total = len(files)
        self._waiting = deque(Batch(folder=str(folder), paths=paths) for paths in batches(files))
        self._found: list[ModuleMeasures | Unparsable] = []
        self._begun = 0.0

    @processor(WorkWanted)
    def give_first(self, ctx: ProcessContext[WorkWanted]) -> None:
        """Give a worker its first batch; the clock runs from the very first."""
        self._begun = self._begun or time.monotonic()
        self._give(ctx)

    @processor(BatchMeasured)
    def take(self, ctx: ProcessContext[BatchMeasured]) -> None:
        """Keep what a worker found, and give it the next batch or finish."""
        self._give(ctx)
        self._found += [*ctx.payload.modules, *ctx.payload.unparsable]
        ctx.report_progress(len(self._found), self._total, "files")
        if len(self._found) == self._total:
            ctx.finish_guild(self._result())

    @processor(ErrorMessage)
    def give_up(self, ctx: ProcessContext[ErrorMessage]) -> None:
        """Finish without a census: a batch is lost."""
        failure = ctx.payload
        error = f"{failure.agent_name}: {failure.error_type}: {failure.message}"
        ctx.finish_guild({"error": error}, success=False)

    def _give(self, ctx: ProcessContext[WorkWanted] | ProcessContext[BatchMeasured]) -> None:
        worker = ctx.message.sender.id
        if self._waiting and worker is not None:
            ctx.send(self._waiting.popleft(), topics=GuildTopics.get_agent_inbox(worker))

    def _result(self) -> dict[str, object]:
        census = Census.of(self.config.folder, self._found)
        ranked = census.modules[: self.config.top]
        return {
            "seconds": time.monotonic() - self._begun,
            "totals": census.totals.model_dump(),
            **census.model_copy(update={"modules": ranked}).model_dump(),
        }


class CensusWorker(Agent[BaseAgentProps]):
    """Measures files, a batch at a time."""

    @processor(GuildStarted)
    def begin(self, ctx: ProcessContext[GuildStarted]) -> None:
        """Ask for work; the coordinator listens to the default topic."""
        ctx.send(WorkWanted())

    @processor(Batch)
    def measure(self, ctx: ProcessContext[Batch]) -> None:
        """Measure the files of a batch; the answer goes to the inbox of who sent it."""
        folder = Path(ctx.payload.folder)
        found = [measure_file(folder, path) for path in ctx.payload.paths]
        ctx.send(
            BatchMeasured(
                modules=tuple(m for m in found if isinstance(m, ModuleMeasures)),
                unparsable=tuple(u for u in found if isinstance(u, Unparsable)),
            )
        )
