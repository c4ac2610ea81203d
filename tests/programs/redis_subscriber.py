"""A subscriber over Redis that says what it gets, and does what that says."""

from __future__ import annotations

import ast
import os
import sys
import threading

from rustic_ai.core.messaging.core.message import Message
from rustic_ai.core.messaging.core.stop_signal import StopSignal
from rustic_ai.redis import RedisMessagingBackend
from tests.redis_server import OUT, SPACE, TOPIC


def main(name: str, settings: str) -> None:
    """Be the durable 'agent', a 'relay' that says nothing, or the 'plain' subscriber."""
    backend = RedisMessagingBackend(**ast.literal_eval(settings))

    def handle(got: Message) -> None:
        text = got.payload["text"]
        backend.send_message(SPACE, OUT, message=got)
        if name != "relay":
            print(text, got.attempt, flush=True)
        if text == "crash":
            os._exit(9)
        if text == "stop":
            threading.Event().wait()

    durable = name != "plain"
    backend.subscribe(
        TOPIC, handle, subscriber=name, durable=durable, from_start=True, max_attempts=3
    )
    if not durable:
        print("ready", flush=True)
    with StopSignal() as stop:
        backend.serve(stop)


if __name__ == "__main__":
    main(*sys.argv[1:])
