"""The same census in one process, one file after the other: what the guild is measured against.

``python -m examples.census.alone FOLDER`` prints it as JSON, with the seconds that it took.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from examples.census.files import python_files
from examples.census.measures import measure_file
from examples.census.results import Census


class Baseline(BaseModel):
    """A census without agents."""

    model_config = ConfigDict(frozen=True)

    census: Census
    seconds: float = Field(description="Wall time of the measuring alone.")


def take_alone(folder: Path) -> Baseline:
    """Take the census in this process."""
    files = python_files(folder)
    began = time.perf_counter()
    census = Census.of(folder, (measure_file(folder, file.path) for file in files))
    return Baseline(census=census, seconds=time.perf_counter() - began)


def take_alone_afresh(folder: Path) -> Baseline:
    """Take it in a fresh process: this one's full heap would slow the garbage collector.

    Raises:
        subprocess.CalledProcessError: it failed; its own error is on stderr.
    """
    command = [sys.executable, "-m", "examples.census.alone", str(folder)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    return Baseline.model_validate_json(done.stdout)


if __name__ == "__main__":
    print(take_alone(Path(sys.argv[1])).model_dump_json())
