"""What this machine allows: bare sockets, without any message in them.

Measured in a fresh process, since it forks, and forks of a program with agents close descriptors.
"""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Callable
from typing import Any

from benchmarks.messaging.processes import Participant, ready, say, settings

_BUFFER = 256 << 10


def send_loop(n: int) -> float:
    """Return messages per second of a loop of `send` on a Unix socket, which a process reads."""
    return float(_elsewhere(what="send", n=n)["rate"])


def relay(n: int, core: int | None = None) -> list[float]:
    """Return the seconds of `n` round trips A, relay, B, relay, A between three processes.

    Args:
        n: how many.
        core: where all three run; None: where the scheduler likes.
    """
    found: list[float] = _elsewhere(what="relay", n=n, on=core)["seconds"]
    return found


def _elsewhere(**told: Any) -> dict[str, Any]:
    with Participant("floors", **told) as one:
        one.hear()
        one.go()
        return one.hear()


def _send_loop(n: int, size: int = 200) -> float:
    ours, theirs = socket.socketpair()
    message, ready_reader, ready = b"x" * size, *os.pipe()
    child = _fork(lambda: _swallow(theirs, n * size, ready), 1 if _cores() > 1 else None)
    os.read(ready_reader, 1)
    begun = time.perf_counter()
    for _ in range(n):
        ours.send(message)
    ours.recv(1)
    seconds = time.perf_counter() - begun
    _collect(child)
    for end in (ours, theirs):
        end.close()
    for descriptor in (ready_reader, ready):
        os.close(descriptor)
    return n / seconds


def _relay(n: int, core: int | None, size: int = 200) -> list[float]:
    ours, near = socket.socketpair()
    theirs, far = socket.socketpair()
    children = [
        _fork(lambda: _echo(theirs, n), core),
        _fork(lambda: _pass_on(near, far, 2 * n), core),
    ]
    before = os.sched_getaffinity(0)
    if core is not None:
        os.sched_setaffinity(0, {core})
    message, buffer, seconds = b"x" * size, bytearray(_BUFFER), []
    try:
        for _ in range(n):
            begun = time.perf_counter()
            ours.send(message)
            ours.recv_into(buffer)
            seconds.append(time.perf_counter() - begun)
    finally:
        os.sched_setaffinity(0, before)
    for child in children:
        _collect(child)
    for end in (ours, near, theirs, far):
        end.close()
    return seconds[n // 10 :]


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _fork(work: Callable[[], None], core: int | None) -> int:
    child = os.fork()
    if child:
        return child
    try:
        if core is not None:
            os.sched_setaffinity(0, {core})
        work()
    finally:
        os._exit(0)


def _collect(child: int) -> None:
    os.waitpid(child, 0)


def _swallow(end: socket.socket, wanted: int, ready: int) -> None:
    buffer = bytearray(_BUFFER)
    os.write(ready, b"x")
    while wanted > 0:
        wanted -= end.recv_into(buffer)
    end.send(b"x")


def _echo(end: socket.socket, n: int) -> None:
    buffer = bytearray(_BUFFER)
    for _ in range(n):
        end.send(memoryview(buffer)[: end.recv_into(buffer)])


def _pass_on(one: socket.socket, other: socket.socket, n: int) -> None:
    poll = select.epoll()
    poll.register(one, select.EPOLLIN)
    poll.register(other, select.EPOLLIN)
    peers = {one.fileno(): (one, other), other.fileno(): (other, one)}
    buffer = bytearray(_BUFFER)
    while n > 0:
        for descriptor, _ in poll.poll():
            source, target = peers[descriptor]
            target.send(memoryview(buffer)[: source.recv_into(buffer)])
            n -= 1


def main() -> None:
    """Measure what was told."""
    told = settings()
    ready()
    if told["what"] == "send":
        say(rate=_send_loop(told["n"]))
    else:
        say(seconds=_relay(told["n"], told["on"]))


if __name__ == "__main__":
    main()
