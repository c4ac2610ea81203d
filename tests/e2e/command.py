"""The installed command in a process of its own, and agents for it to run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "rustic_ai.core"]
WORKERS = """
import threading
from pydantic import BaseModel
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


class SlowStarter(Agent):
    def __init__(self) -> None:
        print("starting slowly", flush=True)
        threading.Event().wait()


class DiskFull(BaseModel):
    disk: str


class Complainer(Agent):
    @processor(GuildStarted)
    def work(self, ctx: ProcessContext[GuildStarted]) -> None:
        ctx.send_error(DiskFull(disk="sda"))
        raise ValueError("out of luck")


class Talker(Agent):
    @processor(GuildStarted)
    def work(self, ctx: ProcessContext[GuildStarted]) -> None:
        for n in range(20):
            print(f"line {n} of the talker", flush=True)
            ctx.report_progress(n + 1, 20, "lines")
        ctx.finish_guild({"answer": 42})
"""


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
