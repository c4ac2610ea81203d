"""The examples, run as their reader would run them."""

from __future__ import annotations

import json
import math
import os
import re
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from examples.census.alone import take_alone, take_alone_afresh
from examples.census.files import standard_library
from examples.census.measures import measure_file
from examples.census.results import Census
from examples.parallel_data_processing import readings
from rustic_ai.core.guild import GuildBuilder

ROOT = Path(__file__).parents[2]


def run_example(*command: object, exit_code: int = 0, complaints: str = "") -> str:
    """Run an example to its end and return what it prints.

    Fails on another exit code, and on a line of stderr that does not match `complaints`.
    """
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        timeout=45,
        check=False,
    )
    assert done.returncode == exit_code, done.stderr
    lines = [line for line in done.stderr.splitlines() if not line.startswith("  ")]  # details
    unknown = [line for line in lines if not re.fullmatch(complaints, line)]
    assert unknown == []
    return done.stdout


def numbers(pattern: str, text: str) -> list[int]:
    """Return the numbers that a pattern with one group finds."""
    return [int(found) for found in re.findall(pattern, text)]


def test_hello_answers_from_another_process() -> None:
    """The smallest example greets, from a process of its own."""
    pids = numbers(r"process (\d+)", out := run_example("examples/hello.py"))
    assert "Hello world" in out
    assert len(set(pids)) == 2


def test_parallel_data_processing_finds_what_one_process_finds() -> None:
    """Mean and deviation are those of all readings together, to the last digit shown."""
    out = run_example("examples/parallel_data_processing.py", "--partitions", 3, "--rows", 2000)
    everything = [value for partition in range(3) for value in readings(partition, 2000)]
    mean, deviation = statistics.fmean(everything), statistics.pstdev(everything)
    assert "Running agents: 4" in out
    assert f"6000 readings: mean {mean:.6f}, standard deviation {deviation:.6f}" in out


def test_monte_carlo_estimates_pi_with_its_error() -> None:
    """Pi is within five standard errors; the error is the binomial one; all workers took part."""
    out = run_example("examples/monte_carlo.py", "--workers", 3, "--samples", 90_000)
    found = re.search(r"pi = (\S+) \+- (\S+)", out)
    assert found is not None
    estimate, error = map(float, found.groups())
    assert abs(estimate - math.pi) <= 5 * error
    assert error == pytest.approx(math.sqrt(math.pi * (4 - math.pi) / 90_000), rel=0.05)
    assert "90000 samples from workers [0, 1, 2]" in out


def test_monitoring_shows_a_process_for_every_agent() -> None:
    """Each agent has a process of its own, which lives and has a size."""
    out = run_example("examples/monitoring.py", "--agents", 2)
    assert len(set(numbers(r"PID: (\d+)", out))) == 2
    assert re.findall(r"Name: (.*)", out) == ["listener number 0", "listener number 1"]
    assert out.count("Alive: True") == out.count("Status: RUNNING") == 2
    assert all(megabytes > 5 for megabytes in numbers(r"Memory: (\d+)\.\d MB", out))
    assert "Total agents: 2\nMax processes: 2\n" in out


def test_killed_agents_come_back_and_the_others_stay() -> None:
    """Each killed agent answers from a new process, the untouched one from its old."""
    command = ("examples/fault_tolerance.py", "--agents", 3, "--kills", 2)
    out = run_example(*command, complaints=r"agent 'sturdy-[01]' was killed .*SIGKILL.*")
    killed = numbers(r"Killing sturdy-\d, process (\d+)", out)
    assert len(re.findall(r"^Agent sturdy-[01] has died .*SIGKILL", out, re.MULTILINE)) == 2
    assert numbers(r"answers from process \d+ \(was (\d+)\)", out) == killed
    assert len(re.findall(r"sturdy-2 answers from process \d+ \(as before\)", out)) == 1
    assert len(set(killed + numbers(r"answers from process (\d+)", out))) == 5


def test_performance_monitoring_tells_busy_from_idle() -> None:
    """Agents that compute use CPU, the idle one next to none; all have a size."""
    out = run_example("examples/performance_monitoring.py", "--busy", 1, "--interval", 0.3)
    found = re.findall(r"Agent (\S+): Memory=(\d+)\.\dMB, CPU=(\d+)\.\d%", out)
    memory = {name: int(megabytes) for name, megabytes, _ in found}
    cpu = {name: int(percent) for name, _, percent in found}
    assert set(cpu) == {"busy-0", "idle"}
    assert cpu["busy-0"] > cpu["idle"] + 5
    assert min(memory.values()) > 5
    assert "Agents: 2/2" in out


@pytest.mark.parametrize("engine", ["multiprocess", "sync"])
def test_the_census_is_that_of_one_process(tmp_path: Path, engine: str) -> None:
    """Real modules of the standard library: ranked table, totals, JSON, and the comparison."""
    folder, output = standard_library() / "email", tmp_path / "census.json"
    out = run_example(
        *("-m", "examples.census", "--folder", folder, "--workers", 2),
        *("--output", output, "--engine", engine),
    )
    content = json.loads(output.read_text())
    alone = take_alone(folder).census
    assert Census.model_validate(content) == alone
    assert content["totals"] == alone.totals.model_dump()
    ranked = re.findall(r"^ *\d+ +(\S+) +([\d,]+)", out, re.MULTILINE)
    expected = [(m.module, f"{m.complexity:,}") for m in alone.modules[:20]]
    assert ranked[: len(expected)] == expected
    timing = content["timing"]
    assert 0 < timing["work"] < timing["total"]
    assert 0 < timing["alone_work"] < timing["alone_total"]
    gain = timing["alone_work"] / timing["work"]
    assert f"speed-up: {gain:.2f} times for the work" in out


def test_a_fresh_process_finds_the_same() -> None:
    """The baseline in a process of its own is that of this process, and says its time."""
    folder = standard_library() / "json"
    fresh = take_alone_afresh(folder)
    assert fresh.census == take_alone(folder).census
    assert fresh.seconds > 0


def test_the_census_reports_what_is_not_python(tmp_path: Path) -> None:
    """Files that do not parse are counted and named; without a baseline nothing is compared."""
    (tmp_path / "good.py").write_text("def f(): pass\n")
    (tmp_path / "bad.py").write_text("def f(:\n")
    output = tmp_path / "census.json"
    out = run_example(
        *("-m", "examples.census", "--folder", tmp_path, "--workers", 1),
        *("--output", output, "--no-baseline"),
    )
    content = json.loads(output.read_text())
    assert [u["path"] for u in content["unparsable"]] == ["bad.py"]
    assert content["modules"] == [measure_file(tmp_path, "good.py").model_dump()]
    assert "1 files are not valid Python" in out
    assert "speed-up" not in out


@pytest.mark.parametrize("name", ["empty", "missing"])
def test_the_census_of_nothing_is_refused(tmp_path: Path, name: str) -> None:
    """A folder without Python, or none at all, is an error of usage, told before any start."""
    (tmp_path / "empty").mkdir()
    run_example(
        *("-m", "examples.census", "--folder", tmp_path / name),
        exit_code=2,
        complaints=r"usage: .*| +.*|.*: error: no Python file in .*",
    )


def test_the_census_as_a_file_is_that_of_one_process(tmp_path: Path) -> None:
    """`guild.yaml` describes the same guild; `top` cuts its list of modules, not the totals."""
    folder = standard_library() / "json"
    text = (ROOT / "examples/census/guild.yaml").read_text()
    assert "      top: 20\n" in text
    file = tmp_path / "guild.yaml"
    file.write_text(text.replace("      top: 20\n", f"      top: 2\n      folder: {folder}\n"))
    with GuildBuilder.from_yaml_file(file).launch() as guild:
        result = guild.wait(30).result
    alone = take_alone(folder).census
    assert Census.model_validate(result).modules == alone.modules[:2]
    assert result["totals"] == alone.totals.model_dump()
