"""The installed command, as people use it."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rustic_ai.core.testing.waiting import wait_until

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "rustic_ai.core"]
WORKERS = """
import threading
from rustic_ai.core.guild import Agent, ProcessContext, processor
from rustic_ai.core.guild.system_messages import GuildStarted


class Finisher(Agent):
    @processor(GuildStarted)
    def work(self, ctx: ProcessContext[GuildStarted]) -> None:
        print("printed by an agent")
        for n in range(20):
            ctx.report_progress(n + 1, 20, "steps")
        ctx.finish_guild({"answer": 42}, success=self.name != "loser")


class Sleeper(Agent):
    pass


class Stubborn(Agent):
    @processor(GuildStarted)
    def work(self, ctx: ProcessContext[GuildStarted]) -> None:
        print("stubborn", flush=True)
        threading.Event().wait()


class Crasher(Agent):
    @processor(GuildStarted)
    def work(self, ctx: ProcessContext[GuildStarted]) -> None:
        raise SystemExit(9)


class Broken(Agent):
    def __init__(self) -> None:
        raise LookupError("no such table")
"""
BUILDER = """
from rustic_ai.core.guild import GuildBuilder, AgentBuilder
from command_workers import Finisher

spec_text = "not a guild"


def finisher():
    return GuildBuilder("built").set_messaging(MESSAGING).add_agent_spec(
        AgentBuilder(Finisher).set_name("finisher").build_spec()
    )
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give a folder with a module of agents."""
    (tmp_path / "command_workers.py").write_text(WORKERS)
    return tmp_path


@pytest.fixture
def guild_file(folder: Path, free_port: int) -> Callable[..., Path]:
    """Give a function that writes a guild file with agents of these classes."""

    def write(*classes: str, name: str = "") -> Path:
        file = folder / "guild.yaml"
        agents = [
            {"name": name or c.lower(), "class_name": f"command_workers.{c}"} for c in classes
        ]
        messaging = {
            "backend_module": "rustic_ai.core.messaging.backend.embedded_backend",
            "backend_class": "EmbeddedMessagingBackend",
            "backend_config": {"port": free_port},
        }
        guild = {"id": "command", "agents": agents, "properties": {"messaging": messaging}}
        file.write_text(json.dumps(guild))  # JSON is YAML
        return file

    return write


def start(*arguments: object) -> subprocess.Popen[str]:
    """Start the command; its output is piped."""
    return subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        cwd=ROOT,
    )


def run(*arguments: object) -> tuple[int, str, str]:
    """Run the command to its end; return exit code, output and errors."""
    with start(*arguments) as process:
        out, err = process.communicate(timeout=40)
        return process.returncode, out, err


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
    assert err == "printed by an agent\n"


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
    code, _, err = run("run", "no_such_module:guild")
    assert code == 3
    assert "module 'no_such_module' cannot be imported" in err


def test_validate(guild_file: Callable[..., Path], folder: Path) -> None:
    """Valid files are named, wrong ones are shown with every problem and exit code 2."""
    good = guild_file("Sleeper")
    code, out, err = run("validate", good)
    assert (code, out, err) == (0, f"{good}: valid, 1 agents\n", "")
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
    assert run("--version")[1] == "rustic-ai 0.1.0\n"


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


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["ctrl-c", "term"]
)
def test_one_interrupt_finishes(
    guild_file: Callable[..., Path], number: signal.Signals, code: int
) -> None:
    """Ctrl-C, or SIGTERM, ends the guild in good order."""
    with start("run", guild_file("Sleeper")) as process:
        assert process.stderr is not None
        wait_until(lambda: "sleeper ready" in process.stderr.readline())  # type: ignore[union-attr]
        process.send_signal(number)
        _, err = process.communicate(timeout=20)
    assert process.returncode == code
    assert "finishing; Ctrl-C again to terminate" in err
    assert "Traceback" not in err


def test_three_interrupts_kill(guild_file: Callable[..., Path]) -> None:
    """An agent that does not stop is terminated by the second Ctrl-C and killed by the third."""
    with start("run", guild_file("Stubborn")) as process:
        assert process.stderr is not None
        wait_until(lambda: process.stderr.readline() == "stubborn\n")  # type: ignore[union-attr]
        began = time.monotonic()
        for said in ("finishing", "terminating", "killing"):
            process.send_signal(signal.SIGINT)
            wait_until(lambda: said in process.stderr.readline())  # type: ignore[union-attr]  # noqa: B023
        assert process.wait(timeout=20) == 130
    assert time.monotonic() - began < 8


def test_on_a_terminal_it_is_live(guild_file: Callable[..., Path]) -> None:
    """On a terminal each agent has a line, progress a bar, and the cursor comes back."""
    main, side = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, "run", str(guild_file("Finisher"))],
        stdout=subprocess.PIPE,
        stderr=side,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "TERM": "xterm",
            "COLUMNS": "100",
        },
        cwd=ROOT,
    )
    os.close(side)
    with process:
        out, _ = process.communicate(timeout=40)
    seen = b""
    while select.select([main], [], [], 0)[0]:
        try:
            seen += os.read(main, 65536)
        except OSError:  # the other side is closed, and everything has been read
            break
    os.close(main)
    assert process.returncode == 0
    assert json.loads(out) == {"answer": 42}
    text = seen.decode()
    assert "finisher" in text
    assert "running" in text
    assert "20/20" in text
    assert "\x1b[?25l" in text
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")


def test_a_port_held_by_something_else(guild_file: Callable[..., Path], free_port: int) -> None:
    """When something else listens on the port of the messages, exit code 4 says so."""
    with socket.create_server(("127.0.0.1", free_port)):
        code, _, err = run("run", guild_file("Sleeper"))
    assert code == 4
    assert f"error[port-taken]: localhost:{free_port} is held by a program" in err
