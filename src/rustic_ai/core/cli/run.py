"""``rustic-ai run``: start a guild, show it at work, end with its result."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from typing import Annotated

import typer

from rustic_ai.core.cli.display import Display, shown
from rustic_ai.core.cli.errors_shown import errors_shown
from rustic_ai.core.cli.exit_codes import GUILD_FAILED, INTERRUPTED, TERMINATED
from rustic_ai.core.cli.failures import failures_reported
from rustic_ai.core.cli.interrupts import Interrupted, Interrupts
from rustic_ai.core.cli.output import result_kept_apart
from rustic_ai.core.cli.target import load_target
from rustic_ai.core.errors import RequestTimeoutError, SpecError
from rustic_ai.core.guild.execution.engine_names import find_engine
from rustic_ai.core.guild.guild import Guild
from rustic_ai.core.guild.spec import GuildSpec
from rustic_ai.core.guild.system_messages import GuildFinished
from rustic_ai.core.messaging.core.messaging_config import MessagingConfig


def run(
    target: Annotated[str, typer.Argument(metavar="FILE|MODULE:GUILD", show_default=False)],
    engine: Annotated[
        str | None, typer.Option(help="multiprocess, sync, ray, or the name of an engine class.")
    ] = None,
    messaging: Annotated[
        str | None, typer.Option(help="Where messages are: redis://..., nats://..., embedded://...")
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
        spec = _runnable(load_target(target), engine, max_processes, messaging)
        with result_kept_apart() as stdout:
            finished = _run(spec, timeout, quiet=quiet)
            if finished.result or as_json:
                indent = None if as_json else 2
                text = json.dumps(finished.result, indent=indent, ensure_ascii=False)
                with os.fdopen(stdout, "w", encoding="utf-8", closefd=False) as file:
                    file.write(text + "\n")
        if not finished.success:
            raise typer.Exit(GUILD_FAILED)


def _run(spec: GuildSpec, timeout: float | None, *, quiet: bool) -> GuildFinished:
    guild = Guild.from_spec(spec)
    interrupts = Interrupts()
    with interrupts.installed(), shown(guild.get_process_info, quiet=quiet) as display:
        try:
            with interrupts.raised(timeout), errors_shown(guild, display.tell):
                return _work(guild, spec, display)
        except Interrupted:
            if interrupts.first == signal.SIGALRM:
                assert timeout is not None
                raise RequestTimeoutError(
                    waited_for=f"the end of guild {spec.id!r}", timeout=timeout
                ) from None
            code = TERMINATED if interrupts.first == signal.SIGTERM else INTERRUPTED
            raise typer.Exit(code) from None
        finally:
            interrupts.end(guild, display.tell)


def _work(guild: Guild, spec: GuildSpec, display: Display) -> GuildFinished:
    display.say(f"guild {spec.name} (agents: {len(spec.agents)}); Ctrl-C ends it")
    for agent in spec.agents:
        display.starting(agent)
        guild.launch_agent(agent)
        display.started(agent)
    guild.announce_start()
    return guild.wait(on_progress=display.progress)


def _runnable(
    spec: GuildSpec, engine: str | None, max_processes: int | None, messaging: str | None
) -> GuildSpec:
    """Return the spec as the options change it.

    Raises:
        SpecError: there is no such engine, or nothing to run.
        MessagingConfigError: there is no such backend.
    """
    if not spec.agents:
        raise SpecError(
            summary=f"guild {spec.name!r} has no agents", hint="it would never be done; add some"
        )
    changes = {
        "execution_engine": engine,
        "max_processes": max_processes,
        "messaging": None if messaging is None else MessagingConfig.of(messaging),
    }
    given = {name: value for name, value in changes.items() if value is not None}
    properties = spec.properties.model_copy(update=given)
    find_engine(properties.execution_engine)
    if properties.messaging is not None:
        properties.messaging.backend_type()
    return spec.model_copy(update={"properties": properties})


def _configure_logging(level: str) -> None:
    number = logging.getLevelNamesMapping().get(level.upper())
    if number is None:
        raise typer.BadParameter(f"{level!r} is none of debug, info, warning, error")
    logging.basicConfig(
        level=number, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
