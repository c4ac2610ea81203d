"""Plain `multiprocessing`: processes by spawn, and pipes between them."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

from benchmarks.peers import jobs
from benchmarks.peers.channels import Channel, ChannelPeer
from benchmarks.peers.children import SPAWN, Child
from benchmarks.peers.peer import Crash, now


class _PipeChannel:
    """Pipes to everybody; what is put goes into all of them, several messages as one list."""

    def __init__(self, pipes: Sequence[Connection], _topic: str, _name: str) -> None:
        self._pipes = pipes

    def put(self, _topic: str, messages: Sequence[dict[str, Any]]) -> None:
        what = messages[0] if len(messages) == 1 else messages
        for pipe in self._pipes:
            pipe.send(what)

    def take(self) -> Sequence[dict[str, Any]]:
        found = self._pipes[0].recv()
        return found if isinstance(found, list) else [found]

    def put_array(self, _topic: str, array: Any) -> None:
        self._pipes[0].send(array)

    def take_array(self) -> Any:
        return self._pipes[0].recv()

    def close(self) -> None:
        for pipe in self._pipes:
            pipe.close()


def _open_pipes(*how: Any) -> Channel:
    return _PipeChannel(*how)


def _serve(line: Connection) -> None:
    """Do what is asked, one after the other."""
    while True:
        job, part = line.recv()
        line.send(job(part))


class Pipes(ChannelPeer):
    """A floor: what the operating system and pickle allow."""

    open = staticmethod(_open_pipes)

    def __init__(self) -> None:
        self._children: list[Child] = []

    def ends(self, receivers: int) -> tuple[Any, list[Any]]:
        """Make a pipe to each receiver."""
        pipes = [SPAWN.Pipe() for _ in range(receivers)]
        return [a for a, _ in pipes], [[b] for _, b in pipes]

    def launch(self, count: int) -> list[int]:
        """Start children that serve calls."""
        self.stop()
        self._children = [Child(_serve) for _ in range(count)]
        return self._ask_all(jobs.hello)

    def keep_busy(self) -> None:
        """Leave the first one in a loop."""
        self._children[0].tell((jobs.spin, None))

    def stop(self) -> None:
        """Close all pipes, which ends them, and join."""
        children, self._children = self._children, []
        for child in children:
            child.line.close()
        for child in children:
            child.stop()

    def work(self, job: str, parts: Sequence[Any]) -> tuple[list[Any], float]:
        """Give each child the next part as soon as it has done one."""
        self.launch(jobs.WORKERS)
        self._ask_all(jobs.warm)
        todo, results, begun = list(reversed(parts)), [], now()
        busy = {}
        for child in self._children:
            child.tell((jobs.JOBS[job], todo.pop()))
            busy[child.line] = child
        while busy:
            for line in wait(list(busy)):
                assert isinstance(line, Connection)
                results.append(line.recv())
                if todo:
                    line.send((jobs.JOBS[job], todo.pop()))
                else:
                    del busy[line]
        return results, now() - begun

    def crash(self, calls: int, seconds: float) -> Crash:
        """Let the pipe's end of file tell."""
        (pid,) = self.launch(1)
        (child,) = self._children
        for number in range(calls):
            child.tell((jobs.nap, (number, seconds)))
        answered = 0
        for _ in range(calls // 4):
            child.hear()
            answered += 1
        killed = now()
        os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(EOFError, ConnectionResetError):
            while child.line.recv():
                answered += 1
        return Crash(now() - killed, "nothing starts it again", calls - answered)

    def _ask_all(self, job: Callable[[Any], Any]) -> list[Any]:
        for child in self._children:
            child.tell((job, None))
        return [child.hear() for child in self._children]
