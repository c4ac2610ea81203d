"""What is left when the program is killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from typing import Any

from benchmarks.marked import VARIABLE, end, marked
from benchmarks.peers.peer import NotThereError
from benchmarks.workloads.findings import Findings
from benchmarks.workloads.workload import Make, Measure, Workload

_SOON, _LATE = "processes left after 2 s", "processes left after 10 s"
_LOOKS = {_SOON: 2.0, _LATE: 10.0}
_HOLD = "hold"
_MARK = "-held"


def _measure(make: Make, sizes: dict[str, Any]) -> Findings:
    """Start this program once more, to hold agents; or, there, hold them."""
    if _HOLD in sizes:
        return _hold(make, sizes)
    found = Findings()
    found.add_all(tuple(_LOOKS), lambda: _kill_and_look(sizes))
    return found


def _hold(make: Make, sizes: dict[str, Any]) -> Findings:
    with make() as peer:
        peer.launch(sizes["count"])
        peer.keep_busy()
        os.write(sizes[_HOLD], b"ready")
        threading.Event().wait()
    raise AssertionError("nothing wakes it")


def _kill_and_look(sizes: dict[str, Any]) -> dict[str, float | str]:
    mark = os.environ[VARIABLE] + _MARK
    ours, theirs = os.pipe()
    found: dict[str, float | str] = {}
    try:
        program = subprocess.Popen(
            [*_this_program(), json.dumps({**sizes, _HOLD: theirs})],
            env={**os.environ, VARIABLE: mark},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pass_fds=(theirs,),
            text=True,
        )
        os.close(theirs)
        if not os.read(ours, 5):
            _explain(program)
        time.sleep(0.2)
        program.kill()
        program.wait()
        began = time.monotonic()
        for name, seconds in _LOOKS.items():
            if seconds > sizes["patience"]:
                found[name] = f"looked at for {sizes['patience']:g} s only"
                continue
            while (left := marked(mark)) and time.monotonic() - began < seconds:
                time.sleep(0.02)
            found[name] = float(len(left))
    finally:
        os.close(ours)
        end(mark, patience=0)
    return found


def _this_program() -> list[str]:
    return [sys.executable, "-m", "benchmarks.peers", *sys.argv[1:3]]


def _explain(program: subprocess.Popen[str]) -> None:
    assert program.stdout is not None
    told = json.loads(program.communicate()[0])
    if "absent" in told:
        raise NotThereError(told["absent"])
    raise AssertionError(told.get("failed"))


WORKLOAD = Workload(
    title="Orphans",
    text="A program with eight agents, one of which computes in pure Python without end, gets "
    "`kill -9`. How many processes that it had started, directly or not, are there afterwards.",
    measures=tuple(Measure(name, "left") for name in _LOOKS),
    measure=_measure,
    quick={"count": 8, "patience": 2},
    full={"count": 8, "patience": 10},
    rounds=1,
)
