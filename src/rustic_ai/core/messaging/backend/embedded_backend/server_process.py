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
from typing import Any

from rustic_ai.core.errors import GuildError, PortTakenError
from rustic_ai.core.messaging.backend.embedded_backend.server import EmbeddedServer
from rustic_ai.core.messaging.backend.embedded_backend.store import Bounds


def main(host: str, port: int, settings: dict[str, Any]) -> None:
    """Serve until the owner and the last client are gone.

    Args:
        host: as `EmbeddedServer`.
        port: as `EmbeddedServer`.
        settings: its other arguments; `bounds` as a dict.
    """
    logging.basicConfig(
        level=logging.WARNING,
        format=f"[message-server {os.getpid()}] %(levelname)s: %(message)s",
    )
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the program that owns us
    try:
        bounds = Bounds(**settings.pop("bounds", {}))
        server = EmbeddedServer(host, port, bounds=bounds, **settings)
        server.start_thread()
    except PortTakenError:
        _say({"error": "port-taken"})
        return
    except (GuildError, OSError, TypeError) as e:
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
