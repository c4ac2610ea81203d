"""`multiprocessing.Queue`: between two processes, nothing kept, nothing acknowledged."""

from __future__ import annotations

import multiprocessing
import time
from typing import Any


def run(n: int, size: int = 200) -> float:
    """Return messages per second from this process to another."""
    context = multiprocessing.get_context("spawn")
    queue: Any = context.Queue()
    answer, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_swallow, args=(queue, n, theirs))
    process.start()
    try:
        answer.recv()
        message = b"x" * size
        begun = time.monotonic()
        for _ in range(n):
            queue.put(message)
        seconds = float(answer.recv()) - begun
        process.join(10)
    finally:
        queue.close()
        if process.is_alive():
            process.kill()
        process.join()
    return n / seconds


def _swallow(queue: Any, n: int, answer: Any) -> None:
    answer.send(None)
    for _ in range(n):
        queue.get()
    answer.send(time.monotonic())
