"""xoscar: an actor in each sub pool, which is a process."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

import xoscar

from benchmarks.peers import jobs
from benchmarks.peers.looks import Look, number_of, numbered
from benchmarks.peers.peer import PATIENCE, Crash, NotThereError, Peer, message, now

T = TypeVar("T")


class _Actor(xoscar.Actor):  # type: ignore[misc]
    """Does all that workloads ask for."""

    def __init__(self) -> None:
        super().__init__()
        self._got, self._last = 0, 0.0

    def do(self, job: Any, part: Any) -> Any:
        return job(part)

    def echo(self, given: Any) -> Any:
        return given

    @xoscar.extensible
    def handle(self, given: dict[str, Any]) -> None:
        self._got, self._last = self._got + 1, now()
        assert given["text"]

    def tally(self) -> tuple[int, float]:
        return self._got, self._last

    def number_of(self, array: Any, look: Look) -> float:
        return number_of(array, look)

    async def ping(self, other: Any, n: int, size: int) -> list[float]:
        seconds = []
        for number in range(n):
            sent = now()
            answer = await other.echo(message(number, size))
            seconds.append(now() - sent)
            assert answer["number"] == number
        return seconds

    async def send(self, others: Sequence[Any], n: int, size: int, batch: int) -> float:
        begun = now()
        for first in range(0, n, batch):
            together = [message(i, size) for i in range(first, min(first + batch, n))]
            for other in others:
                if batch == 1:
                    await other.handle.tell(together[0])
                else:
                    await other.handle.batch(*[other.handle.delay(one) for one in together])
        ended = [await self._end_of(other, n) for other in others]
        return max(ended) - begun

    @staticmethod
    async def _end_of(other: Any, n: int) -> float:
        while True:
            got, last = await other.tally()
            if got == n:
                return float(last)
            await asyncio.sleep(0.0005)

    async def offer(self, other: Any, n: int, size: int, look: Look) -> list[float]:
        array, seconds = numbered(size), []
        for number in range(n):
            array[-1] = number
            sent = now()
            answer = await other.number_of(array, look)
            seconds.append(now() - sent)
            assert answer == number
        return seconds


class XoscarActors(Peer):
    """A main pool in this program, on an event loop in a thread."""

    def __init__(self) -> None:
        self._pool: Any = None
        self._actors: list[Any] = []
        self._loop: Any = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the event loop; there is nothing else before the first actor."""
        import uvloop

        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="xoscar")
        self._thread.start()

    def stop(self) -> None:
        """Stop the pool."""
        if self._thread is None:
            return
        if self._pool is not None:
            self._run(self._pool.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._thread = self._pool = None

    def launch(self, count: int) -> list[int]:
        """Make a pool of so many processes, and an actor in each."""
        return self._run(self._launch(count))

    def keep_busy(self) -> None:
        """Leave the first one in a loop."""
        self._run(self._actors[0].do.tell(jobs.spin, None))

    def trips(self, n: int, size: int) -> list[float]:
        """Have one actor call another."""
        self.launch(2)
        return self._run(self._actors[0].ping(self._actors[1], n, size))

    def flow(self, n: int, size: int, receivers: int, batch: int) -> float:
        """Have one actor tell others; together by `batch` of an extensible method."""
        self.launch(1 + receivers)
        return self._run(self._actors[0].send(self._actors[1:], n, size, batch))

    def arrays(self, size: int, n: int, look: Look, *, in_place: bool) -> list[float]:
        """Call with an array."""
        if in_place:
            raise NotThereError("what is sent is copied")
        self.launch(2)
        return self._run(self._actors[0].offer(self._actors[1], n, size, look))

    def work(self, job: str, parts: Sequence[Any]) -> tuple[list[Any], float]:
        """Give each actor the next part as soon as it has done one."""
        self.launch(jobs.WORKERS)
        return self._run(self._work(job, parts))

    def crash(self, calls: int, seconds: float) -> Crash:
        """With the default: actors of a process that died are made anew."""
        (pid,) = self.launch(1)
        return self._run(self._crash(pid, calls, seconds))

    async def _launch(self, count: int) -> list[int]:
        if self._pool is not None:
            await self._pool.stop()
        self._pool = await xoscar.create_actor_pool("127.0.0.1", n_process=count)
        self._actors = [
            await xoscar.create_actor(_Actor, address=address) for address in self._addresses()
        ]
        return await self._ask_all(jobs.hello)

    async def _ask_all(self, job: Any) -> list[int]:
        return list(await asyncio.gather(*[actor.do(job, None) for actor in self._actors]))

    def _addresses(self) -> list[str]:
        return list(self._pool.sub_processes)

    async def _work(self, job: str, parts: Sequence[Any]) -> tuple[list[Any], float]:
        await self._ask_all(jobs.warm)
        todo, results, begun = list(reversed(parts)), [], now()

        async def use(actor: Any) -> None:
            while todo:
                results.append(await actor.do(jobs.JOBS[job], todo.pop()))

        await asyncio.gather(*[use(actor) for actor in self._actors])
        return results, now() - begun

    async def _crash(self, pid: int, calls: int, seconds: float) -> Crash:
        (actor,) = self._actors
        waiting = [asyncio.ensure_future(actor.do(jobs.nap, (i, seconds))) for i in range(calls)]
        await asyncio.gather(*waiting[: calls // 4])
        killed = now()
        os.kill(pid, signal.SIGKILL)
        noticed, lost = 0.0, 0
        for call in asyncio.as_completed(waiting):
            try:
                await call
            except (xoscar.errors.ServerClosed, OSError):
                noticed, lost = noticed or now() - killed, lost + 1
        return Crash(noticed, await _answers_again(actor, pid) - killed, lost)

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(_await(work), self._loop).result()


async def _await(work: Any) -> Any:
    return await work


async def _answers_again(actor: Any, pid: int) -> float:
    """Ask every few milliseconds until another process answers; returns when."""
    deadline = now() + PATIENCE
    while now() < deadline:
        try:
            if await actor.do(jobs.hello, None) != pid:
                return now()
        except (xoscar.errors.XoscarError, OSError):
            await asyncio.sleep(0.005)
    raise TimeoutError("it did not come back")
