"""``python -m examples.census``: run the guild, print the ranking, say what was gained."""

from __future__ import annotations

import argparse
import os
import sys
import time
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress

from examples.census.agents import CensusCoordinator, CensusWorker, CoordinatorProps
from examples.census.alone import take_alone_afresh
from examples.census.files import python_files, standard_library
from examples.census.report import Timing, show, write
from examples.census.results import Census
from rustic_ai.core.errors import GuildError
from rustic_ai.core.guild import AgentBuilder, GuildBuilder, GuildSpec, GuildTopics
from rustic_ai.core.guild.system_messages import GuildFinished, ProgressReport
from rustic_ai.core.messaging import AgentTag


def census_guild(
    folder: Path, workers: int, engine: str, messaging: str | None = None
) -> GuildSpec:
    """Describe a coordinator for the folder, and its workers."""
    coordinator = (
        AgentBuilder(CensusCoordinator)
        .set_name("coordinator")
        .set_properties(CoordinatorProps(folder=folder))
        .add_additional_topic(GuildTopics.ERROR_TOPIC)
    )
    guild = GuildBuilder(guild_name="census").set_execution_engine(engine)
    if messaging is not None:
        guild.set_messaging(messaging)
    guild.add_agent_spec(coordinator.build_spec())
    for number in range(1, workers + 1):
        worker = AgentBuilder(CensusWorker).set_name(f"worker-{number}")
        guild.add_agent_spec(worker.listen_to_default_topic(False).build_spec())
    return guild.build_spec()


def run(spec: GuildSpec, console: Console) -> GuildFinished:
    """Run the guild to its end, with a progress bar on a terminal."""
    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    with bar, GuildBuilder.from_spec(spec).launch() as guild:
        task = bar.add_task("files", total=None)

        def advance(report: ProgressReport, _: AgentTag) -> None:
            bar.update(task, completed=report.done, total=report.total)

        return guild.wait(on_progress=advance)


def take(arguments: argparse.Namespace) -> int:
    """Take the census as told; return the exit code."""
    console, messages = Console(width=None if sys.stdout.isatty() else 110), Console(stderr=True)
    folder: Path = arguments.folder.resolve()
    began = time.perf_counter()
    spec = census_guild(folder, arguments.workers, arguments.engine, arguments.messaging)
    finished = run(spec, messages)
    total = time.perf_counter() - began
    if not finished.success:
        print(f"error: {finished.result['error']}", file=sys.stderr)
        return 1
    census = Census.model_validate(finished.result)
    timing = Timing(arguments.workers, arguments.engine, total, finished.result["seconds"])
    show(census, console)
    if arguments.baseline:
        console.print("the same once more in one process, to compare ...")
        began = time.perf_counter()
        alone = take_alone_afresh(folder)
        total = time.perf_counter() - began
        timing = replace(timing, alone_total=total, alone_work=alone.seconds)
        if alone.census != census:
            print("error: one process found something else than the guild", file=sys.stderr)
            return 1
    console.print(timing.describe(), highlight=False, soft_wrap=True)
    write(census, timing, arguments.output)
    console.print(f"everything is in {arguments.output}", highlight=False, soft_wrap=True)
    return 0


def main() -> int:
    """Read the command line, and run."""
    parser = argparse.ArgumentParser("python -m examples.census", description=__doc__)
    parser.add_argument("--folder", type=Path, default=standard_library(), help="what to measure")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="default: CPUs")
    parser.add_argument("--output", type=Path, default=Path("census.json"), help="JSON file")
    parser.add_argument("--engine", choices=("multiprocess", "sync", "ray"), default="multiprocess")
    parser.add_argument(
        "--messaging", metavar="URL", help="redis://..., nats://...; see the README"
    )
    parser.add_argument(
        "--baseline",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="measure one process, too, and compare the results",
    )
    arguments = parser.parse_args()
    if arguments.workers < 1:
        parser.error("--workers must be at least 1")
    try:
        python_files(arguments.folder)
    except FileNotFoundError as e:
        parser.error(str(e))
    try:
        return take(arguments)
    except GuildError as e:
        print(f"error: {e}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
