"""Relays one message, and stops itself (SIGSTOP) in the middle; see `test_messaging_takeover`."""

import os
import signal
import sys

from rustic_ai.core.errors import BackendUnavailableError
from rustic_ai.core.messaging.backend.embedded_backend import EmbeddedMessagingBackend
from rustic_ai.core.messaging.core.message import Message
from rustic_ai.core.messaging.core.stop_signal import StopSignal
from tests.chaos import INPUT, OUTPUT, SPACE

if __name__ == "__main__":
    backend = EmbeddedMessagingBackend(port=int(sys.argv[1]), auto_start_server=False)

    def pass_on(message: Message) -> None:
        backend.send_message(SPACE, OUTPUT, message)
        os.kill(os.getpid(), signal.SIGSTOP)

    backend.subscribe(INPUT, pass_on, subscriber="relay", durable=True, from_start=True)
    with StopSignal() as stop:
        try:
            backend.serve(stop)
        except BackendUnavailableError as e:
            print(e)
    backend.cleanup()
