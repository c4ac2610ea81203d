"""The census: which files, in which portions, ranked how."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from examples.census.agents import CensusCoordinator, CensusWorker, CoordinatorProps
from examples.census.alone import take_alone
from examples.census.files import SourceFile, batches, python_files, standard_library
from examples.census.measures import ModuleMeasures, Unparsable
from examples.census.report import Timing, show
from examples.census.results import Census
from rustic_ai.core.guild import AgentBuilder, GuildBuilder, GuildTopics
from tests.support import NO_MESSAGES


def module(name: str, complexity: int, lines: int = 1) -> ModuleMeasures:
    return ModuleMeasures(
        module=name,
        path=f"{name}.py",
        lines=lines,
        code_lines=1,
        functions=1,
        classes=0,
        complexity=complexity,
        max_complexity=complexity,
        most_complex="f",
        max_nesting=1,
    )


def test_all_python_files_below_a_folder_are_found(tmp_path: Path) -> None:
    """In order, with their sizes; what is installed beside them is left out."""
    for name in ("b.py", "a/z.py", "a/notes.txt", "site-packages/x.py", "a/__pycache__/y.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x = 1\n")
    assert python_files(tmp_path) == [SourceFile("a/z.py", 6), SourceFile("b.py", 6)]


def test_a_folder_without_python_is_refused(tmp_path: Path) -> None:
    """No file, no census: the error names the folder."""
    with pytest.raises(FileNotFoundError, match=tmp_path.name):
        python_files(tmp_path)


def test_the_standard_library_is_the_running_pythons() -> None:
    """It is large, and holds the module that everybody knows."""
    paths = {file.path for file in python_files(standard_library())}
    assert {"os.py", "json/decoder.py"} <= paths
    assert len(paths) > 500


def test_batches_hold_every_file_once_the_large_first() -> None:
    """Portions reach the target size, but for the last."""
    files = [SourceFile(f"{size}.py", size) for size in (1, 2, 3, 50, 60, 100)]
    assert batches(files, target=100) == [
        ("100.py",),
        ("60.py", "50.py"),
        ("3.py", "2.py", "1.py"),
    ]
    assert batches([], target=100) == []


def test_the_census_does_not_depend_on_the_order() -> None:
    """Modules are ranked by complexity, then size, then path; totals are sums."""
    found = [
        module("a", 2),
        module("b", 9),
        module("c", 2, lines=5),
        Unparsable(path="x", reason=""),
    ]
    census = Census.of(Path("/folder"), found)
    assert census == Census.of(Path("/folder"), reversed(found))
    assert [m.module for m in census.modules] == ["b", "c", "a"]
    totals = census.totals
    assert (totals.modules, totals.unparsable, totals.complexity, totals.lines) == (3, 1, 13, 7)


def test_the_table_shows_the_top_and_the_totals() -> None:
    """Only so many modules as wanted are shown, with the totals of all."""
    console = Console(width=160, file=io.StringIO(), record=True)
    census = Census.of(Path("/folder"), [module("first", 1234), module("second", 2)])
    show(census, console, top=1)
    text = console.export_text()
    assert "1,234" in text
    assert "second" not in text
    assert "2 modules" in text


def test_the_gain_is_said_for_the_work_and_for_all() -> None:
    """The speed-up is measured against one process, where that was measured."""
    timing = Timing(2, "multiprocess", total=8.0, work=5.0, alone_total=10.4, alone_work=10.0)
    assert "2.00 times for the work, 1.30 times from start to end" in timing.describe()
    assert "speed-up" not in Timing(2, "sync", total=8.0, work=5.0).describe()


def census_guild(folder: Path, top: int | None = None) -> GuildBuilder:
    """Return a guild of two workers in this process."""
    coordinator = AgentBuilder(CensusCoordinator).set_name("coordinator")
    coordinator.set_properties(CoordinatorProps(folder=folder, top=top))
    coordinator.add_additional_topic(GuildTopics.ERROR_TOPIC)
    guild = GuildBuilder().set_execution_engine("sync").set_messaging(NO_MESSAGES)
    guild.add_agent_spec(coordinator.build_spec())
    for name in ("w1", "w2"):
        worker = AgentBuilder(CensusWorker).set_name(name).listen_to_default_topic(False)
        guild.add_agent_spec(worker.build_spec())
    return guild


def test_the_guild_finds_what_one_process_finds() -> None:
    """The result is the census that is taken without agents, file after file."""
    folder = standard_library() / "email"
    with census_guild(folder).launch() as guild:
        finished = guild.wait(10)
    assert Census.model_validate(finished.result) == take_alone(folder).census


def test_the_result_can_be_the_top_only() -> None:
    """`top` cuts the list of modules, not the totals."""
    folder = standard_library() / "json"
    with census_guild(folder, top=2).launch() as guild:
        result = guild.wait(10).result
    assert len(result["modules"]) == 2
    assert result["totals"] == take_alone(folder).census.totals.model_dump()


def test_a_failing_worker_ends_the_guild() -> None:
    """A worker's exception finishes the guild without success, and is told."""
    folder = standard_library() / "json"
    with census_guild(folder).launch() as guild:
        guild.wait(10)
        guild.publish(
            {"folder": 3},
            GuildTopics.get_agent_inbox(guild.list_agents()[1].id),
            format="examples.census.agents.Batch",
        )
        finished = guild.wait(10)
    assert not finished.success
    assert finished.result["error"].startswith("w1: PayloadError")
