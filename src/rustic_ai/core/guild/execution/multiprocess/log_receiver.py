"""Log records of agents, handed to the program's own handlers on a thread of their own."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading

import msgspec

from rustic_ai.core.guild.execution.multiprocess.log_sender import SentRecord

logger = logging.getLogger(__name__)

_LARGEST = 1 << 18
_END = b""


class LogReceiver:
    """Receives from `start` to `close`. Handlers may take their time: agents do not wait."""

    def __init__(self, name: str) -> None:
        self._socket, sender = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sender = sender
        self._decode = msgspec.msgpack.Decoder(SentRecord).decode
        self._thread = threading.Thread(target=self._receive, name=f"rustic-logs-{name}")
        self._thread.daemon = True

    def start(self) -> None:
        """Receive from now on."""
        self._thread.start()

    def fileno(self) -> int:
        """Return the descriptor that agents send on."""
        return self._sender.fileno()

    def close(self) -> None:
        """Hand over what has arrived, and end. Agents have ended."""
        self._sender.setblocking(True)
        if self._thread.is_alive():
            with contextlib.suppress(OSError):
                self._sender.send(_END)
            self._thread.join()
        self._socket.close()
        self._sender.close()

    def _receive(self) -> None:
        while data := self._socket.recv(_LARGEST):
            try:
                self._hand_over(self._decode(data))
            except Exception:
                logger.exception("a log record of an agent could not be handled")

    def _hand_over(self, sent: SentRecord) -> None:
        if sent.dropped:
            logger.warning(
                "%d log records of agent %r were lost: handlers do not keep up",
                sent.dropped,
                sent.agent_name,
            )
        target = logging.getLogger(sent.logger)
        if not sent.level or not target.isEnabledFor(sent.level):
            return
        message = f"[{sent.agent_name} {sent.pid}] {sent.message}"
        record = target.makeRecord(
            sent.logger,
            sent.level,
            sent.path,
            sent.line,
            message,
            (),
            None,
            sent.function,
            {"agent_name": sent.agent_name, "agent_pid": sent.pid},
        )
        record.created = sent.created
        record.msecs = (sent.created - int(sent.created)) * 1000
        record.process = sent.pid
        record.threadName = sent.thread
        record.exc_text = sent.traceback or None
        target.handle(record)
