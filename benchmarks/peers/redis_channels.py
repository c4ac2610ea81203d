"""Redis by redis-py: streams with groups, and pub/sub, over the Unix socket of a private server."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.peers.channels import Channel, ChannelPeer
from benchmarks.peers.peer import PATIENCE, NotThereError

_TOGETHER = 100
"""Entries that a reader takes at once, at most."""


class _Redis(ChannelPeer):
    """Runs a server that keeps nothing on disk."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self._path = ""

    def start(self) -> None:
        """Start the server."""
        program = shutil.which("redis-server")
        if program is None:
            raise NotThereError("no redis-server here; Debian: apt-get install redis-server")
        folder = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-redis-"))
        self._path = str(Path(folder) / "redis.sock")
        words = ["--port", "0", "--unixsocket", self._path, "--save", "", "--appendonly", "no"]
        words += ["--client-output-buffer-limit", "pubsub 0 0 0", "--dir", folder]
        process = subprocess.Popen([program, *words], stdout=subprocess.DEVNULL)
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)
        _await(self._path)

    def stop(self) -> None:
        """End the server."""
        self._stack.close()

    def ends(self, receivers: int) -> tuple[Any, list[Any]]:
        """Tell everybody the same path; nothing of the flow before is left."""
        with _client(self._path) as client:
            client.flushall()
        return self._path, [self._path] * receivers


class RedisStreams(_Redis):
    """Streams: stored, read by groups, acknowledged."""

    @staticmethod
    def open(path: str, topic: str, name: str) -> Channel:
        """Connect."""
        return _Streams(path, topic, name)


class RedisPubSub(_Redis):
    """Pub/sub: whoever listens gets it."""

    @staticmethod
    def open(path: str, topic: str, _: str) -> Channel:
        """Connect."""
        return _PubSub(path, topic)


def _client(path: str) -> Any:
    import redis

    return redis.Redis(unix_socket_path=path)


def _await(path: str) -> None:
    import redis

    deadline = time.monotonic() + 10
    while True:
        try:
            with _client(path) as client:
                client.ping()
        except redis.ConnectionError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.005)
        else:
            return


def _array_of(data: bytes) -> Any:
    import numpy as np

    return np.frombuffer(data)


class _Streams:
    """A stream for each topic; what was taken is acknowledged when more is wanted."""

    def __init__(self, path: str, topic: str, name: str) -> None:
        self._client, self._topic, self._group = _client(path), topic, name
        self._taken: list[bytes] = []
        if topic:
            self._client.xgroup_create(topic, name, id="0", mkstream=True)

    def put(self, topic: str, messages: Sequence[dict[str, Any]]) -> None:
        if len(messages) == 1:
            self._client.xadd(topic, {"d": json.dumps(messages[0])})
            return
        pipe = self._client.pipeline(transaction=False)
        for one in messages:
            pipe.xadd(topic, {"d": json.dumps(one)})
        pipe.execute()

    def take(self) -> Sequence[dict[str, Any]]:
        return [json.loads(data) for data in self._read(_TOGETHER)]

    def put_array(self, topic: str, array: Any) -> None:
        # One entry is kept: a hundred arrays would fill the memory of a small machine.
        self._client.xadd(topic, {"d": array.tobytes()}, maxlen=1, approximate=False)

    def take_array(self) -> Any:
        (data,) = self._read(1)
        return _array_of(data)

    def _read(self, most: int) -> list[bytes]:
        if self._taken:
            pipe = self._client.pipeline(transaction=False)
            pipe.xack(self._topic, self._group, *self._taken)
            self._wait(pipe, most)
            found = pipe.execute()[-1]
        else:
            found = self._wait(self._client, most)
        if not found:
            raise TimeoutError(f"nothing came for {PATIENCE:g} s")
        # Replies are pairs in protocol 2, and a mapping to lists of pages in protocol 3.
        pages = found[self._topic.encode()] if isinstance(found, dict) else [found[0][1]]
        entries = pages[0]
        self._taken = [entry for entry, _ in entries]
        return [fields[b"d"] for _, fields in entries]

    def _wait(self, by: Any, most: int) -> Any:
        patience = int(PATIENCE * 1000)
        return by.xreadgroup(self._group, "me", {self._topic: ">"}, count=most, block=patience)

    def close(self) -> None:
        self._client.close()


class _PubSub:
    """A channel for each topic."""

    def __init__(self, path: str, topic: str) -> None:
        self._client, self._heard = _client(path), None
        if topic:
            self._heard = self._client.pubsub(ignore_subscribe_messages=True)
            self._heard.subscribe(topic)
            # The answer to the subscription: from then on nothing is missed.
            self._heard.get_message(timeout=PATIENCE)

    def put(self, topic: str, messages: Sequence[dict[str, Any]]) -> None:
        if len(messages) == 1:
            self._client.publish(topic, json.dumps(messages[0]))
            return
        pipe = self._client.pipeline(transaction=False)
        for one in messages:
            pipe.publish(topic, json.dumps(one))
        pipe.execute()

    def take(self) -> Sequence[dict[str, Any]]:
        return [json.loads(self._next())]

    def put_array(self, topic: str, array: Any) -> None:
        self._client.publish(topic, array.tobytes())

    def take_array(self) -> Any:
        return _array_of(self._next())

    def _next(self) -> bytes:
        assert self._heard is not None
        found = self._heard.get_message(timeout=PATIENCE)
        if found is None:
            raise TimeoutError(f"nothing came for {PATIENCE:g} s")
        data: bytes = found["data"]
        return data

    def close(self) -> None:
        if self._heard is not None:
            self._heard.close()
        self._client.close()
