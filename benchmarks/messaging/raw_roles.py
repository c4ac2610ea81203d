"""A participant that publishes or subscribes through the backend API."""

from __future__ import annotations

import time
from typing import Any

from benchmarks.messaging.processes import now, ready, say, settings
from rustic_ai.core.messaging import MessagingBackend
from rustic_ai.core.messaging.backend.embedded_backend import EmbeddedMessagingBackend
from rustic_ai.core.messaging.core.envelope import AgentTag
from rustic_ai.core.messaging.core.message import Message
from rustic_ai.core.messaging.core.message_id import GemstoneGenerator
from rustic_ai.core.messaging.core.messaging_config import MessagingConfig
from rustic_ai.core.messaging.core.stop_signal import StopSignal

NAMESPACE = "bench"


def make_messages(size: int, topic: str, count: int) -> list[Message]:
    """Return messages whose payload is `size` bytes long."""
    ids, tag = GemstoneGenerator(), AgentTag("publisher", "publisher")
    payload = {"data": b"x" * (size - len(b"\x81\xa4data\xc4\xc8"))}
    return [
        Message(id_obj=ids.get_id(), sender=tag, topics=topic, payload=payload)
        for _ in range(count)
    ]


def publish(backend: MessagingBackend, told: dict[str, Any]) -> dict[str, float]:
    """Send as many messages as told, or for as many seconds; the last one waits to be stored."""
    topic, count, seconds = told["topic"], told["n"], told.get("seconds")
    some = make_messages(told["size"], topic, 1 if told["size"] > 1 << 16 else 512)
    ready()
    send, sent = backend.send_message, 0
    begun, used = now(), time.process_time()
    ends = begun + seconds if seconds else float("inf")
    while sent < count - 1 and now() < ends:
        for message in some[: count - 1 - sent]:
            send(NAMESPACE, topic, message)
        sent += min(len(some), count - 1 - sent)
    left, done = now(), time.process_time()
    backend.store_message(NAMESPACE, topic, some[0])
    return {"begun": begun, "left": left, "stored": now(), "cpu": done - used, "n": sent + 1}


def subscribe(backend: MessagingBackend, told: dict[str, Any]) -> dict[str, float]:
    """Take in as many messages as told, or for as many seconds."""
    stop, wanted, got, first, used = StopSignal(), told["n"], 0, 0.0, 0.0
    seconds, reads = told.get("seconds"), told.get("reads")

    def take(message: Message) -> None:
        nonlocal got, first, used
        got += 1
        if reads and message.sender is None:
            raise AssertionError("nobody sent it")
        if got == 1:
            first, used = now(), time.process_time()
        if got == wanted or (seconds and not got % 256 and now() - first > seconds):
            stop.set()

    backend.subscribe(told["topic"], take, subscriber=told["name"])
    ready()
    backend.serve(stop)
    return {"first": first, "last": now(), "cpu": time.process_time() - used, "n": got}


def connect(told: dict[str, Any]) -> MessagingBackend:
    """Connect to the store that was told."""
    if "store" in told:
        return MessagingConfig.of(told["store"]).create_backend()
    return EmbeddedMessagingBackend(
        port=told["port"], auto_start_server=False, transport=told["transport"]
    )


def main() -> None:
    """Play the role that was told."""
    told = settings()
    backend = connect(told)
    role = publish if told["role"] == "publish" else subscribe
    if told.get("profile"):
        import cProfile

        profile = cProfile.Profile()
        result = profile.runcall(role, backend, told)
        profile.dump_stats(told["profile"])
    else:
        result = role(backend, told)
    say(**result)
    backend.cleanup()


if __name__ == "__main__":
    main()
