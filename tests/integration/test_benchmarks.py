"""The comparison with peers runs; what it finds is not judged here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_a_quick_launch_makes_tables_and_charts(tmp_path: Path) -> None:
    """One command measures ours and a peer, and writes results, document and chart."""
    command = [sys.executable, "-m", "benchmarks", "--quick", "--only", "launch"]
    done = subprocess.run(
        [*command, "--peer", "ours", "--peer", "multiprocessing", "--output", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "benchmarks" / "results.json").read_text())["launch"]["peers"]
    for peer in ("ours", "multiprocessing"):
        assert found[peer]["values"].keys() == {"1 agent", "8 agents", "runtime up"}
        assert found[peer]["left"] == []
    assert "Launch to ready" in (tmp_path / "benchmarks.md").read_text()
    assert (tmp_path / "benchmarks" / "launch.svg").exists()
