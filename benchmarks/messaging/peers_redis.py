"""The peer that keeps and acknowledges, too: Redis streams with a consumer group, by redis-py.

Pipelines of 100, over the Unix socket of a server of its own that neither saves nor logs.
"""

from __future__ import annotations

import contextlib
import importlib.util
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.messaging.processes import Participant, now, ready, say, settings
from benchmarks.messaging.report import MissingPeerError

_BATCH = 100
_STREAM = "flow"


def run(n: int, size: int = 200, subscribers: int = 1) -> float:
    """Return deliveries per second, each added, read by its group, and acknowledged."""
    with server() as path, contextlib.ExitStack() as stack:
        common = {"path": path, "n": n, "size": size}
        takers = [
            stack.enter_context(
                Participant("peers_redis", role="subscribe", group=f"g{i}", **common)
            )
            for i in range(subscribers)
        ]
        sender = stack.enter_context(Participant("peers_redis", role="publish", **common))
        for one in [*takers, sender]:
            one.hear()
        for one in [*takers, sender]:
            one.go()
        begun = float(sender.hear()["begun"])
        ended = max(float(one.hear()["last"]) for one in takers)
    return n * subscribers / (ended - begun)


@contextlib.contextmanager
def server() -> Iterator[str]:
    """Run a server that keeps nothing on disk; give the path of its Unix socket."""
    program = shutil.which("redis-server")
    if program is None:
        raise MissingPeerError("no redis-server; Debian: apt-get install redis-server")
    if importlib.util.find_spec("redis") is None:
        raise MissingPeerError("no redis-py; pip install redis hiredis")
    with tempfile.TemporaryDirectory(prefix="bench-redis-") as folder:
        path = str(Path(folder) / "redis.sock")
        options = ["--port", "0", "--unixsocket", path, "--save", "", "--appendonly", "no"]
        process = subprocess.Popen([program, *options, "--dir", folder], stdout=subprocess.DEVNULL)
        try:
            _await_server(path)
            yield path
        finally:
            process.kill()
            process.wait()


def _await_server(path: str) -> None:
    deadline = time.monotonic() + 10
    while True:
        try:
            with _client(path) as client:
                client.ping()
        except Exception:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return


def _client(path: str) -> Any:
    import redis

    return redis.Redis(unix_socket_path=path)


def _publish(client: Any, told: dict[str, Any]) -> dict[str, float]:
    data = {"d": b"x" * told["size"]}
    ready()
    begun = now()
    for start in range(0, told["n"], _BATCH):
        pipe = client.pipeline(transaction=False)
        for _ in range(min(_BATCH, told["n"] - start)):
            pipe.xadd(_STREAM, data)
        pipe.execute()
    return {"begun": begun}


def _subscribe(client: Any, told: dict[str, Any]) -> dict[str, float]:
    group, got = told["group"], 0
    client.xgroup_create(_STREAM, group, mkstream=True)
    ready()
    ids: list[bytes] = []
    while got < told["n"]:
        pipe = client.pipeline(transaction=False)
        if ids:
            pipe.xack(_STREAM, group, *ids)
        pipe.xreadgroup(group, "me", {_STREAM: ">"}, count=_BATCH, block=1000)
        found = pipe.execute()[-1]
        entries = (
            found.get(_STREAM.encode(), [[]])[0]
            if isinstance(found, dict)
            else (found[0][1] if found else [])
        )
        ids = [entry_id for entry_id, _ in entries]
        got += len(ids)
    client.xack(_STREAM, group, *ids)
    return {"last": now()}


def main() -> None:
    """Play the role that was told."""
    told = settings()
    with _client(told["path"]) as client:
        say(**(_publish if told["role"] == "publish" else _subscribe)(client, told))


if __name__ == "__main__":
    main()
