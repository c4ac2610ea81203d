"""The installed command, as people use it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.command import run, start

BUILDER = """
from rustic_ai.core.guild import GuildBuilder, AgentBuilder
from command_workers import Finisher

spec_text = "not a guild"


def failing():
    raise ValueError("nothing to build from")


def finisher():
    return GuildBuilder("built").set_messaging(MESSAGING).add_agent_spec(
        AgentBuilder(Finisher).set_name("finisher").build_spec()
    )
"""


def test_a_guild_runs_to_its_end(guild_file: Callable[..., Path]) -> None:
    """The result is on stdout as JSON alone; lines about agents, and their prints, on stderr."""
    code, out, err = run("run", "--json", guild_file("Finisher", "Sleeper"))
    assert code == 0, err
    assert json.loads(out) == {"answer": 42}
    assert out.count("\n") == 1
    assert "agent finisher ready (pid " in err
    assert "agent sleeper ready (pid " in err
    assert "20 of 20 steps" in err
    assert "printed by an agent" in err
    assert "\x1b" not in err


def test_a_guild_that_fails(guild_file: Callable[..., Path]) -> None:
    """A guild that says it failed is exit code 1, its result is still shown; quiet is quiet."""
    code, out, err = run("run", "-q", guild_file("Finisher", name="loser"))
    assert code == 1
    assert json.loads(out) == {"answer": 42}
    assert re.fullmatch(r"\[loser \d+\] printed by an agent\n", err)


def test_an_agent_that_dies_fails_the_guild(guild_file: Callable[..., Path]) -> None:
    """When an agent dies the command says which and how, and ends the others."""
    code, out, err = run("run", guild_file("Crasher", "Sleeper"))
    assert (code, out) == (1, "")
    assert "error[guild-failed]" in err
    assert "agent 'crasher' ended with exit code 9" in err


def test_an_agent_that_does_not_start(guild_file: Callable[..., Path]) -> None:
    """A failing constructor is shown with the agent's own traceback, and none of ours."""
    code, _, err = run("run", guild_file("Sleeper", "Broken"))
    assert code == 1
    assert "error[agent-start]: agent 'broken' did not start: LookupError: no such table" in err
    assert 'raise LookupError("no such table")' in err
    assert "cli/run.py" not in err


def test_a_guild_of_a_module(folder: Path, free_port: int) -> None:
    """`module:function` runs what the function returns; other things are refused."""
    messaging = f"""MESSAGING = {{
        "backend_module": "rustic_ai.core.messaging.backend.embedded_backend",
        "backend_class": "EmbeddedMessagingBackend",
        "backend_config": {{"port": {free_port}}},
    }}"""
    (folder / "command_builder.py").write_text(messaging + BUILDER)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        code, out, err = run("run", "--json", "command_builder:finisher", "--max-processes", 1)
        assert (code, json.loads(out)) == (0, {"answer": 42}), err
        code, _, err = run("run", "command_builder:spec_text")
        assert code == 2
        assert "command_builder:spec_text is a str" in err
        code, _, err = run("run", "command_builder:nothing")
        assert code == 2
        assert "has no 'nothing'" in err
        code, _, err = run("run", "command_builder:failing")
        assert code == 2
        assert err.startswith("error[spec]: command_builder:failing failed:\nTraceback")
        assert "cli/target.py" not in err
        assert "nothing to build from" in err
        (folder / "command_leaver.py").write_text("raise SystemExit(0)\n")
        code, _, err = run("run", "command_leaver:guild")
        assert code == 3
        assert "SystemExit: 0" in err
        assert "command_leaver.py:1" in err
    code, _, err = run("run", "no_such_module:guild")
    assert code == 3
    assert "module 'no_such_module' cannot be imported" in err


def test_what_cannot_run_is_refused_at_once(guild_file: Callable[..., Path]) -> None:
    """No agents, an unknown engine, more agents than processes: exit code 2, nothing goes on."""
    code, _, err = run("run", guild_file())
    assert (code, err.count("\n")) == (2, 2)
    assert "has no agents" in err
    code, _, err = run("run", "--engine", "snc", guild_file("Sleeper"))
    assert (code, err.count("\n")) == (2, 2)
    assert "hint: did you mean 'sync'?" in err
    code, _, err = run("run", "--max-processes", 1, guild_file("Sleeper", "Finisher"))
    assert code == 2
    assert "error[process-limit]" in err


def test_errors_of_agents_are_shown_as_they_come(guild_file: Callable[..., Path]) -> None:
    """Failures and error answers of agents are told, quiet or not, and the guild goes on."""
    file = guild_file("Complainer")
    with start("run", "--quiet", "--log-level", "critical", file) as process:
        assert process.stderr is not None
        reported, failed = process.stderr.readline(), process.stderr.readline()
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
    assert (
        reported == 'error[agent-error]: agent \'complainer\' reports DiskFull: {"disk": "sda"}\n'
    )
    assert failed == (
        "error[agent-error]: agent 'complainer' failed in work: ValueError: out of luck\n"
    )
    assert process.returncode == 130


def test_validate(guild_file: Callable[..., Path], folder: Path) -> None:
    """Valid files are named, wrong ones are shown with every problem and exit code 2."""
    good = guild_file("Sleeper")
    code, out, err = run("validate", good)
    assert (code, out, err) == (0, f"{good}: valid (agents: 1)\n", "")
    bad = folder / "bad.yaml"
    bad.write_text("agents:\n  - nam: x\n    class_name: command_workers.Sleepr\n")
    code, out, err = run("validate", good, bad)
    assert code == 2
    assert f"--> {bad}:2:5" in err
    assert "hint: did you mean 'name'?" in err
    assert "did you mean 'Sleeper'?" in err
    code, _, err = run("run", bad)
    assert code == 2
    assert err.count("error:") == 3


def test_schema_and_version(tmp_path: Path) -> None:
    """The schema goes to stdout or a file; the version is told."""
    code, out, _ = run("schema")
    assert code == 0
    assert run("schema", "--output", tmp_path / "schema.json")[0] == 0
    assert json.loads(out) == json.loads((tmp_path / "schema.json").read_text())
    code, _, err = run("schema", "--output", tmp_path / "no" / "such" / "folder")
    assert code == 2
    assert "Invalid value" in err
    kind = "compiled" if "RUSTIC_EXPECT_COMPILED" in os.environ else "not compiled"
    assert run("--version")[1] == f"rustic-ai 0.1.0 ({kind})\n"


@pytest.mark.parametrize(
    "arguments", [["run"], ["nonsense"], ["run", "x.yaml", "--timeout", "-1"], ["run", "--what"]]
)
def test_bad_usage(arguments: list[str]) -> None:
    """Bad usage is exit code 2 with a word on what is wrong."""
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert "Usage: rustic-ai" in err


def test_a_time_limit(guild_file: Callable[..., Path]) -> None:
    """A guild that takes too long is ended with exit code 124."""
    code, _, err = run("run", "--timeout", 1, guild_file("Sleeper"))
    assert code == 124
    assert "error[timeout]: the end of guild 'command' did not come within 1 s" in err


def test_the_time_limit_counts_the_start(guild_file: Callable[..., Path]) -> None:
    """An agent whose constructor hangs is given up when the time of the command is over."""
    began = time.monotonic()
    code, _, err = run("run", "--timeout", 2, guild_file("SlowStarter"))
    assert code == 124
    assert "error[timeout]" in err
    assert time.monotonic() - began < 20


def test_a_port_held_by_something_else(guild_file: Callable[..., Path], free_port: int) -> None:
    """When something else listens on the port of the messages, exit code 4 says so."""
    with socket.create_server(("127.0.0.1", free_port)):
        code, _, err = run("run", guild_file("Sleeper"))
    assert code == 4
    assert f"error[port-taken]: localhost:{free_port} is held by a program" in err
