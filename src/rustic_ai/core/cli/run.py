"""``rustic-ai run``: start a guild, show it at work, end with its result."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.console import Console

from rustic_ai.core.cli.display import Display, LiveDisplay, PlainDisplay
from rustic_ai.core.cli.exit_codes import GUILD_FAILED, INTERRUPTED, TERMINATED
from rustic_ai.core.cli.failures import failures_reported
from rustic_ai.core.cli.interrupts import Interrupted, Interrupts
from rustic_ai.core.cli.target import load_target
from rustic_ai.core.guild.guild import Guild
from rustic_ai.core.guild.spec import GuildSpec
from rustic_ai.core.guild.system_messages import GuildFinished


def run(
    target: Annotated[str, typer.Argument(metavar="FILE|MODULE:GUILD", show_default=False)],
    engine: Annotated[
        str | None, typer.Option(help="multiprocess, sync, or the name of an engine class.")
    ] = None,
    max_processes: Annotated[
        int | None, typer.Option(min=1, help="Limit of the multiprocess engine.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the result as JSON, and nothing else, to stdout.")
    ] = False,
    timeout: Annotated[
        float | None, typer.Option(min=0.001, help="Seconds after which it is ended.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show errors only.")] = False,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "warning",
) -> None:
    """Run a guild until it says that it is done.

    Ctrl-C ends it: once to let the agents finish what they have in hand, twice to terminate them,
    three times to kill them.
    """
    with failures_reported(traceback=log_level == "debug"):
        _configure_logging(log_level)
        spec = _adjusted(load_target(target), engine, max_processes)
        with _agents_print_to_stderr() as stdout:
            finished = _run(spec, timeout, quiet=quiet)
            text = json.dumps(finished.result, indent=None if as_json else 2, ensure_ascii=False)
            if finished.result or as_json:
                os.write(stdout, (text + "\n").encode())
        if not finished.success:
            raise typer.Exit(GUILD_FAILED)


def _run(spec: GuildSpec, timeout: float | None, *, quiet: bool) -> GuildFinished:
    console = Console(stderr=True)
    guild = Guild.from_spec(spec)
    display: Display
    if console.is_terminal and not quiet:
        display = LiveDisplay(console, guild.get_process_info)
    else:
        display = PlainDisplay(console, guild.get_process_info, quiet=quiet)
    interrupts = Interrupts()
    with interrupts.installed():
        try:
            with interrupts.raised(), display:
                display.say(f"guild {spec.name}: {len(spec.agents)} agents; Ctrl-C ends it")
                for agent in spec.agents:
                    display.starting(agent)
                    guild.launch_agent(agent)
                    display.started(agent)
                guild.announce_start()
                return guild.wait(timeout, display.progress)
        except Interrupted:
            code = TERMINATED if interrupts.first == signal.SIGTERM else INTERRUPTED
            raise typer.Exit(code) from None
        finally:
            interrupts.end(guild, lambda text: console.print(text, highlight=False))


def _adjusted(spec: GuildSpec, engine: str | None, max_processes: int | None) -> GuildSpec:
    changes = {"execution_engine": engine, "max_processes": max_processes}
    given = {name: value for name, value in changes.items() if value is not None}
    properties = spec.properties.model_copy(update=given)
    return spec.model_copy(update={"properties": properties})


def _configure_logging(level: str) -> None:
    number = logging.getLevelNamesMapping().get(level.upper())
    if number is None:
        raise typer.BadParameter(f"{level!r} is none of debug, info, warning, error")
    logging.basicConfig(
        level=number, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )


@contextmanager
def _agents_print_to_stderr() -> Iterator[int]:
    """Keep standard output for the result: what agents print goes to standard error.

    Yields the descriptor of the real standard output.
    """
    sys.stdout.flush()
    real = os.dup(1)
    os.dup2(2, 1)
    try:
        yield real
    finally:
        sys.stdout.flush()
        os.dup2(real, 1)
        os.close(real)
