"""``rustic-ai schema``: the JSON Schema of guild files."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from rustic_ai.core.guild.spec_file import guild_schema


def schema(
    output: Annotated[
        Path | None, typer.Option(help="File to write; default: standard output.")
    ] = None,
) -> None:
    """Print the JSON Schema of guild files, for editors and checkers."""
    text = json.dumps(guild_schema(), indent=2) + "\n"
    if output is None:
        sys.stdout.write(text)
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as e:
        raise typer.BadParameter(f"{output} cannot be written: {e.strerror}") from e
