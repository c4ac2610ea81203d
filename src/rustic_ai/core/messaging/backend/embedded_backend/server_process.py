"""What the process of an auto-started server runs.

It says on its standard output, one JSON line each, that it is ready or why not, and, when its
owner lets go of it (end of file on standard input), whether it ends or stays for other programs.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import signal
import sys

from rustic_ai.core.errors import PortTakenError
from rustic_ai.core.messaging.backend.embedded_backend.server import EmbeddedServer


def main(host: str, port: int) -> None:
    """Serve until the owner and the last client are gone."""
    logging.basicConfig(
        level=logging.WARNING,
        format=f"[message-server {os.getpid()}] %(levelname)s: %(message)s",
    )
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the program that owns us
    server = EmbeddedServer(host, port)
    try:
        server.start_thread()
    except PortTakenError:
        _say({"error": "port-taken"})
        return
    except OSError as e:
        _say({"error": str(e)})
        return
    gc.freeze()
    _say({"port": server.port})
    sys.stdin.buffer.read()
    server.end_when_empty(lambda ends: _say({"ends": ends}))
    server.join()


def _say(fact: dict[str, object]) -> None:
    try:
        os.write(sys.stdout.fileno(), json.dumps(fact).encode() + b"\n")
    except BrokenPipeError:
        logging.getLogger(__name__).debug("the owner is gone and does not hear %s", fact)
