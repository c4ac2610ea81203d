"""Errors as one clear block on standard error, and the exit code that goes with them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from traceback import print_exc

import typer

from rustic_ai.core.cli.exit_codes import exit_code_of
from rustic_ai.core.errors import GuildError, SpecFileError


@contextmanager
def failures_reported(*, traceback: bool = False) -> Iterator[None]:
    """Turn an error into a message and an exit code.

    Args:
        traceback: show our own traceback, too.
    """
    try:
        yield
    except GuildError as e:
        if traceback:
            print_exc()
        report(e)
        raise typer.Exit(exit_code_of(e)) from None


def report(error: GuildError) -> None:
    """Print an error; those of a file show their place already."""
    text = str(error) if isinstance(error, SpecFileError) else f"error[{error.code}]: {error}"
    print(text, file=sys.stderr)  # noqa: T201 - this is where the command speaks
