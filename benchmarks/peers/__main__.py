"""Runs one workload on one peer, in the peer's own environment; prints one line of JSON.

`python -m benchmarks.peers PEER WORKLOAD SIZES`, from the root of the repository; sizes are JSON.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import sys
import traceback
from typing import Any

from benchmarks.peers.catalogue import PEERS, Entry
from benchmarks.peers.peer import NotThereError
from benchmarks.workloads.catalogue import load


def _measure(entry: Entry, workload: str, sizes: dict[str, Any]) -> dict[str, Any]:
    try:
        return load(workload).measure(entry.load, sizes).as_dict()
    except NotThereError as e:
        return {"absent": str(e)}
    except Exception as e:  # noqa: BLE001 - one that fails does not cost the others
        traceback.print_exc()
        return {"failed": f"{type(e).__name__}: {e}"}


def _versions(entry: Entry) -> dict[str, str]:
    found = {}
    for name in entry.packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def main() -> None:
    """Measure what the command line says."""
    name, workload, sizes = sys.argv[1:]
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a peer prints is not the answer
    entry = PEERS[name]
    found = {**_measure(entry, workload, json.loads(sizes)), "versions": _versions(entry)}
    print(json.dumps(found), file=answer, flush=True)


if __name__ == "__main__":
    main()
