"""Ray: an actor for each process."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import tempfile
from collections.abc import Sequence
from typing import Any

from benchmarks.peers import jobs
from benchmarks.peers.looks import Look, number_of, numbered
from benchmarks.peers.peer import PATIENCE, Crash, NotThereError, Peer, message, now

_ADDRESS = "127.0.0.2"
"""Loopback; Ray puts one of the machine's own in the place of 127.0.0.1."""
_CPUS = 2
_STORE = 1 << 30
_LAUNCHED_WITHIN = 300.0


class _Actor:
    """Does all that workloads ask for; becomes an actor of Ray's where Ray is there."""

    def __init__(self) -> None:
        self._got, self._last = 0, 0.0

    def do(self, job: Any, part: Any) -> Any:
        return job(part)

    def echo(self, given: Any) -> Any:
        return given

    def handle(self, given: dict[str, Any]) -> None:
        self._got, self._last = self._got + 1, now()
        assert given["text"]

    def tally(self) -> tuple[int, float]:
        return self._got, self._last

    def number_of(self, array: Any, look: Look) -> float:
        return number_of(array, look)

    def ping(self, other: Any, n: int, size: int) -> list[float]:
        import ray

        seconds = []
        for number in range(n):
            sent = now()
            answer = ray.get(other.echo.remote(message(number, size)))
            seconds.append(now() - sent)
            assert answer["number"] == number
        return seconds

    def send(self, others: Sequence[Any], n: int, size: int) -> float:
        import ray

        calls = [other.handle.options(num_returns=0) for other in others]
        begun = now()
        for number in range(n):
            for call in calls:
                call.remote(message(number, size))
        tallies = ray.get([other.tally.remote() for other in others])  # in order: after all others
        assert all(got == n for got, _ in tallies)
        return float(max(last for _, last in tallies) - begun)

    def offer(self, other: Any, n: int, size: int, look: Look) -> list[float]:
        import ray

        array, seconds = numbered(size), []
        for number in range(n):
            array[-1] = number
            sent = now()
            answer = ray.get(other.number_of.remote(ray.put(array), look))
            seconds.append(now() - sent)
            assert answer == number
        return seconds


class RayActors(Peer):
    """A node of this program's own."""

    def __init__(self) -> None:
        self._folder = ""
        self._actors: list[Any] = []

    def start(self) -> None:
        """Start a node, and wait for the workers that it starts beforehand."""
        os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS": "0"}
        import ray

        self._folder = tempfile.mkdtemp(prefix="bench-ray-")
        ray.init(
            address="local",
            num_cpus=_CPUS,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            object_store_memory=_STORE,
            _node_ip_address=_ADDRESS,
            _temp_dir=self._folder,
        )
        hello = ray.remote(jobs.hello)
        ray.get([hello.remote() for _ in range(_CPUS)], timeout=PATIENCE)

    def stop(self) -> None:
        """Shut the node down."""
        import ray

        self._actors = []
        ray.shutdown()
        shutil.rmtree(self._folder, ignore_errors=True)

    def launch(self, count: int) -> list[int]:
        """Make actors, each of which says its pid."""
        self._actors = [self._make() for _ in range(count)]
        return self._ask_all()

    def keep_busy(self) -> None:
        """Leave the first one in a loop."""
        self._actors[0].do.remote(jobs.spin, None)

    def trips(self, n: int, size: int) -> list[float]:
        """Have one actor call another."""
        import ray

        self.launch(2)
        found: list[float] = ray.get(self._actors[0].ping.remote(self._actors[1], n, size))
        return found

    def flow(self, n: int, size: int, receivers: int, batch: int) -> float:
        """Have one actor call others, without results."""
        if batch > 1:
            raise NotThereError("calls cannot be made together")
        import ray

        self.launch(1 + receivers)
        found: float = ray.get(self._actors[0].send.remote(self._actors[1:], n, size))
        return found

    def arrays(self, size: int, n: int, look: Look, *, in_place: bool) -> list[float]:
        """Put each into the store, and pass its reference."""
        if in_place:
            raise NotThereError("what is sent is copied")
        import ray

        self.launch(2)
        found: list[float] = ray.get(self._actors[0].offer.remote(self._actors[1], n, size, look))
        return found

    def work(self, job: str, parts: Sequence[Any]) -> tuple[list[Any], float]:
        """Give each actor the next part as soon as it has done one."""
        import ray

        self.launch(jobs.WORKERS)
        self._ask_all(jobs.warm)
        todo, results, busy, begun = list(reversed(parts)), [], {}, now()

        def give(actor: Any) -> None:
            if todo:
                busy[actor.do.remote(jobs.JOBS[job], todo.pop())] = actor

        for actor in self._actors:
            give(actor)
        while busy:
            (done,), _ = ray.wait(list(busy), num_returns=1)
            give(busy.pop(done))
            results.append(ray.get(done))
        return results, now() - begun

    def crash(self, calls: int, seconds: float) -> Crash:
        """Notice by an actor that stays dead; come back with restarts, and calls tried again."""
        return Crash(self._noticed(), *self._come_back(calls, seconds))

    def _noticed(self) -> float:
        import ray

        self._actors = [self._make()]
        (pid,) = self._ask_all()
        waiting = self._actors[0].do.remote(jobs.spin, None)
        ray.wait([waiting], timeout=0.1)
        killed = now()
        os.kill(pid, signal.SIGKILL)
        try:
            ray.get(waiting)
        except ray.exceptions.ActorDiedError:
            return now() - killed
        raise AssertionError("the call returned, though its actor was killed")

    def _come_back(self, calls: int, seconds: float) -> tuple[float, int]:
        import ray

        self._actors = [self._make(max_restarts=-1, max_task_retries=-1)]
        (pid,) = self._ask_all()
        waiting = [self._actors[0].do.remote(jobs.nap, (i, seconds)) for i in range(calls)]
        ray.get(waiting[: calls // 4])
        killed, recovered, lost = now(), 0.0, 0
        os.kill(pid, signal.SIGKILL)
        for call in waiting[calls // 4 :]:
            try:
                _, by = ray.get(call)
            except ray.exceptions.RayActorError:
                lost += 1
            else:
                if by != pid and not recovered:
                    recovered = now() - killed
        return recovered, lost

    @staticmethod
    def _make(**options: Any) -> Any:
        import ray

        return ray.remote(_Actor).options(num_cpus=0, **options).remote()

    def _ask_all(self, job: Any = jobs.hello) -> list[int]:
        import ray

        asked = [actor.do.remote(job, None) for actor in self._actors]
        found: list[int] = ray.get(asked, timeout=_LAUNCHED_WITHIN)
        return found
