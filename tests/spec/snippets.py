"""The code blocks of the specification, read from its own text."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.spec import prelude

SPECIFICATION = Path(__file__).with_name("specification.md")
_START = "from tests.spec.prelude import *\nmultiprocessing.cpu_count = eight_cores\n"
_PARTS = re.compile(r"^(#+ [^\n]*)$|^( *)```(\w*)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Snippet:
    """One code block, and the heading above it."""

    heading: str
    code: str


def all_snippets() -> list[Snippet]:
    """Return every code block in order."""
    found, heading = [], ""
    for part in _PARTS.finditer(SPECIFICATION.read_text()):
        if part[1]:
            heading = part[1].lstrip("# ")
        else:
            indent = part[2]
            lines = [line.removeprefix(indent) for line in part[4].splitlines()]
            found.append(Snippet(heading, "\n".join(lines) + "\n"))
    return found


def snippet(heading: str, number: int = 0) -> str:
    """Return the code of the `number`-th block under a heading."""
    return [s.code for s in all_snippets() if s.heading == heading][number]


def run(code: str, **names: Any) -> dict[str, Any]:
    """Run code after the prelude, in this process; returns its names."""
    scope = {**vars(prelude), **names, "__name__": "snippet"}
    exec(compile(code, str(SPECIFICATION), "exec"), scope)
    return scope


def start_script(path: Path, *parts: str) -> subprocess.Popen[str]:
    """Start a script that consists of the prelude and these parts, as a user would."""
    path.write_text("\n".join((_START, *parts)))
    return subprocess.Popen(
        [sys.executable, str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
