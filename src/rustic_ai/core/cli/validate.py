"""``rustic-ai validate``: find everything that is wrong with guild files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from rustic_ai.core.cli.exit_codes import BAD_INPUT
from rustic_ai.core.cli.failures import report
from rustic_ai.core.errors import SpecFileError
from rustic_ai.core.guild.spec_file import read_guild_file


def validate(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", show_default=False)],
) -> None:
    """Check guild files; names every problem with its line, column and what is near."""
    console = Console()
    wrong = False
    for file in files:
        try:
            spec = read_guild_file(file)
        except SpecFileError as e:
            report(e)
            wrong = True
        else:
            line = f"{file}: valid (agents: {len(spec.agents)})"
            console.print(line, highlight=False, markup=False, soft_wrap=True)
    if wrong:
        raise typer.Exit(BAD_INPUT)
