"""joblib over loky: `Parallel` for work, loky's executor for launches and calls."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from typing import Any

from benchmarks.peers import jobs
from benchmarks.peers.executor import ExecutorPeer, meet_warm
from benchmarks.peers.jobs import WORKERS
from benchmarks.peers.peer import now


class Loky(ExecutorPeer):
    """The reusable executor, which `joblib.Parallel` uses, too."""

    def make(self, workers: int) -> Any:
        """Return a pool whose idle workers stay."""
        from joblib.externals.loky import get_reusable_executor

        return get_reusable_executor(workers, timeout=600)

    def stop(self) -> None:
        """Shut down and wait."""
        pool, self.pool = self.pool, None
        if pool is not None:
            pool.shutdown(wait=True)

    def work(self, job: str, parts: Sequence[Any]) -> tuple[list[Any], float]:
        """Run all parts by `Parallel`, with its workers warm."""
        from joblib import Parallel, delayed

        with Parallel(n_jobs=WORKERS, backend="loky") as parallel:
            with tempfile.TemporaryDirectory(prefix="bench-") as folder:
                parallel(delayed(meet_warm)((folder, WORKERS)) for _ in range(WORKERS))
            begun = now()
            results = parallel(delayed(jobs.JOBS[job])(part) for part in parts)
            seconds = now() - begun
        self.pool = self.make(WORKERS)  # in the place of what `Parallel` has left
        self.stop()
        return list(results), seconds
