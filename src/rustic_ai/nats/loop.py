"""An asyncio loop on a thread of its own, for callers that have none."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from rustic_ai.core.errors import BackendClosedError

T = TypeVar("T")


class LoopThread:
    """Runs coroutines for other threads, until `close`.

    Args:
        name: of the thread.
    """

    def __init__(self, name: str) -> None:
        self._started: concurrent.futures.Future[asyncio.AbstractEventLoop]
        self._started = concurrent.futures.Future()
        self._lock = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()
        self.loop = self._started.result()

    def _run(self) -> None:
        async def until_stopped() -> None:
            self._stop = asyncio.Event()
            self._started.set_result(asyncio.get_running_loop())
            await self._stop.wait()

        with asyncio.Runner() as runner:  # at its end it cancels what still runs
            runner.run(until_stopped())

    def call(self, work: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
        """Run a coroutine on the loop and return what it returns.

        Args:
            work: the coroutine.
            timeout: seconds after which it is cancelled.

        Raises:
            TimeoutError: it took too long.
            BackendClosedError: the loop has ended, or ends meanwhile.
        """
        future = self._submit(work)
        try:
            return future.result(timeout)
        except concurrent.futures.CancelledError as e:
            raise BackendClosedError from e
        except BaseException:
            future.cancel()
            raise

    def _submit(self, work: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        with self._lock:
            if self._closed:
                work.close()
                raise BackendClosedError
            return asyncio.run_coroutine_threadsafe(work, self.loop)

    def soon(self, action: Callable[..., object], *arguments: object) -> None:
        """Have the loop call something; nothing happens where it has ended."""
        with self._lock:
            if not self._closed:
                self.loop.call_soon_threadsafe(action, *arguments)

    def close(self) -> None:
        """End the loop, what runs on it, and the thread; idempotent."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self.loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
