"""Relays messages over NATS, and does what they say: hang, die, stop; see `test_nats_faults`."""

import json
import os
import signal
import sys
from pathlib import Path

from rustic_ai.core.errors import BackendUnavailableError
from rustic_ai.core.messaging.core.message import Message
from rustic_ai.core.messaging.core.stop_signal import StopSignal
from rustic_ai.nats.messaging import NatsMessagingBackend


def main(settings: str, log: str, max_attempts: str) -> None:
    """Serve until SIGTERM; the log has a line for each delivery before it is handled."""
    lines = Path(log).open("a", buffering=1)  # noqa: SIM115 - until this process ends
    backend = NatsMessagingBackend(**json.loads(settings))

    def obey(message: Message) -> None:
        text = message.payload["text"]
        lines.write(f"{text} {message.attempt}\n")
        backend.send_message("space", "space:out", message)
        if text == "hang":
            signal.pause()
        elif text == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        elif text == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)

    with StopSignal() as stop:
        signal.signal(signal.SIGTERM, lambda *_: stop.set())
        backend.subscribe(
            "space:topic",
            obey,
            subscriber="relay",
            durable=True,
            from_start=True,
            max_attempts=int(max_attempts),
        )
        try:
            backend.serve(stop)
        except BackendUnavailableError as e:
            print(e)
    backend.cleanup()


if __name__ == "__main__":
    main(*sys.argv[1:])
