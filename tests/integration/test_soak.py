"""The soak itself, for a few seconds; `make soak` takes its time."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

SOAK = Path(__file__).parents[2] / "tools" / "soak.py"


def test_random_kills_under_load_leave_every_agent_as_its_policy_wants() -> None:
    """Agents, nursery and server die at random; all come back, or are FATAL, and nothing is left.

    With this seed the first five kills are of all three kinds.
    """
    done = subprocess.run(
        [sys.executable, str(SOAK), "--seconds", "5", "--seed", "3"],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    end = r"^end: killed (\d+) agent, (\d+) nursery, (\d+) server"
    (kills,) = re.findall(end, done.stdout, re.MULTILINE)
    assert all(int(count) > 0 for count in kills)
