"""The command ``rustic-ai``."""

from __future__ import annotations

from typing import Annotated

import typer

from rustic_ai.core._version import __version__, how_built
from rustic_ai.core.cli.run import run
from rustic_ai.core.cli.schema import schema
from rustic_ai.core.cli.validate import validate

_EPILOG = (
    "Exit codes: 0 fine, 1 the guild failed, 2 bad usage or description, 3 import failed, "
    "4 no message server, 124 timed out, 130 interrupted, 143 terminated."
)
app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(epilog=_EPILOG)(run)
app.command(epilog=_EPILOG)(validate)
app.command()(schema)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"rustic-ai {__version__} ({how_built()})")
        raise typer.Exit


@app.callback()
def rustic_ai(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Say which.")
    ] = False,
) -> None:
    """Run guilds: groups of agents, every one in its own operating-system process."""


def main() -> None:
    """Run the command."""
    app(prog_name="rustic-ai")
