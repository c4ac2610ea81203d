"""A process that was given up, and comes back: it cannot spoil what its successor does."""

from __future__ import annotations

import os
import signal

import psutil

from rustic_ai.core.messaging.backend.embedded_backend import EmbeddedMessagingBackend
from rustic_ai.core.messaging.core.message import Message
from rustic_ai.core.testing.contracts.messaging_backend import message
from rustic_ai.core.testing.waiting import wait_until
from tests.chaos import INPUT, OUTPUT, SPACE, ServerProgram
from tests.support import start_program


def test_a_stopped_process_that_comes_back_stores_nothing_twice(free_port: int) -> None:
    """Its successor has handled its message by then; its own step is refused, and it ends."""
    server = ServerProgram(free_port, {})
    successor = EmbeddedMessagingBackend(port=free_port, auto_start_server=False)
    one = message("once")
    successor.store_message(SPACE, INPUT, one)
    attempts = []

    def pass_on(got: Message) -> None:
        attempts.append(got.attempt)
        successor.store_message(SPACE, OUTPUT, got)

    stopped = start_program("stopped_relay.py", free_port)
    try:
        process = psutil.Process(stopped.pid)
        wait_until(lambda: process.status() == psutil.STATUS_STOPPED)
        successor.subscribe(INPUT, pass_on, subscriber="relay", durable=True)
        successor.start()
        wait_until(lambda: successor.get_messages_for_topic(OUTPUT) == [one])
        os.kill(stopped.pid, signal.SIGCONT)
        out, err = stopped.communicate(timeout=20)
        assert "another process has taken the place of its subscriber" in out, err
        assert attempts == [2]
        assert successor.get_messages_for_topic(OUTPUT) == [one]
    finally:
        stopped.kill()
        stopped.communicate()
        successor.cleanup()
        server.close()
