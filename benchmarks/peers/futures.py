"""`concurrent.futures.ProcessPoolExecutor`."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from typing import Any

from benchmarks.peers.children import SPAWN
from benchmarks.peers.executor import ExecutorPeer


class Futures(ExecutorPeer):
    """With `spawn`, as workers that are forked from a program with threads may hang."""

    def make(self, workers: int) -> Any:
        """Return a pool."""
        return ProcessPoolExecutor(workers, SPAWN)

    def stop(self) -> None:
        """Shut down and wait."""
        pool, self.pool = self.pool, None
        if pool is not None:
            pool.shutdown(cancel_futures=True)
