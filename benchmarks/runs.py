"""Running workloads on peers, in rounds that take turns."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.environments import ROOT, NoEnvironmentError, python_for
from benchmarks.marked import VARIABLE, end
from benchmarks.peers.catalogue import PEERS
from benchmarks.results import Book
from benchmarks.workloads.catalogue import load

_PATIENCE = 600
_ERROR_BYTES = 4000


def measure(
    book: Book,
    workloads: Sequence[str],
    peers: Sequence[str],
    rounds: int,
    *,
    quick: bool,
    tell: Callable[[str], None],
    keep: Callable[[], None],
) -> None:
    """Run all, round by round, so that what disturbs the machine hits all peers alike.

    Args:
        book: takes what is found.
        workloads: their names.
        peers: their names.
        rounds: how many.
        quick: with small sizes, and without making environments.
        tell: is called with a line for each run.
        keep: is called after all peers' turns at a workload, so that an interruption costs little.
    """
    pythons: dict[str, Path] = {}
    for name in peers:
        try:
            pythons[name] = python_for(PEERS[name], create=not quick)
        except NoEnvironmentError as e:
            tell(f"{name} is left out: {e}")
            book.leave_out(name, str(e))
    for turn in range(rounds):
        for workload in workloads:
            described = load(workload)
            if turn >= (described.rounds or rounds):
                continue
            for name, python in pythons.items():
                if _is_wanted(name, workload, quick=quick):
                    began = time.monotonic()
                    sizes = described.quick if quick else described.full
                    found = run_one(python, name, workload, sizes)
                    book.add(workload, name, found)
                    took = time.monotonic() - began
                    tell(
                        f"round {turn + 1}/{rounds} {workload} {name} {took:.1f} s{_problem(found)}"
                    )
            keep()


def _is_wanted(peer: str, workload: str, *, quick: bool) -> bool:
    entry = PEERS[peer]
    if quick and entry.does_quickly and workload not in entry.does_quickly:
        return False
    return not entry.does or workload in entry.does


def run_one(python: Path, peer: str, workload: str, sizes: Mapping[str, Any]) -> dict[str, Any]:
    """Run a workload on a peer in its Python; nothing of it is left afterwards.

    Returns:
        What `benchmarks.peers` has printed; or under "failed" what went wrong. Under "left" what
        had to be killed at the end.
    """
    mark = secrets.token_hex(8)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), VARIABLE: mark}
    # With it, children that are started afresh compile our modules again each time.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    command = [str(python), "-m", "benchmarks.peers", peer, workload, json.dumps(dict(sizes))]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        out, errors = process.communicate(timeout=_PATIENCE)
        found = _answer(out, errors)
    except subprocess.TimeoutExpired:
        process.kill()
        found = {"failed": f"did not end within {_PATIENCE} s"}
    finally:
        left = end(mark)
        process.communicate()
    return {**found, "left": left}


def _answer(out: bytes, errors: bytes) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(out)
    except ValueError:
        found = {"failed": "it said nothing"}
    if "failed" in found:
        sys.stderr.write(errors.decode(errors="replace")[-_ERROR_BYTES:])
    return found


def _problem(found: Mapping[str, Any]) -> str:
    told = f": {found['failed']}" if "failed" in found else ""
    return told + (f"; had to be killed: {len(found['left'])}" if found["left"] else "")
