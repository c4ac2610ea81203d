"""Log records of an agent, sent to the program's own handlers without ever blocking the agent."""

from __future__ import annotations

import logging
import os
import socket

import msgspec

MAX_RECORD = 60_000
"""Bytes of a record's text that travel; the rest is cut and said so."""


class SentRecord(msgspec.Struct, frozen=True, array_like=True):
    """What of a log record travels."""

    agent_name: str
    pid: int
    logger: str
    level: int
    message: str
    traceback: str
    created: float
    path: str
    line: int
    function: str
    thread: str
    dropped: int
    """Records of this process that were lost just before."""


class LogSender(logging.Handler):
    """Sends records as datagrams; one that finds no room is counted, and the count is sent."""

    def __init__(self, fd: int, agent_name: str) -> None:
        super().__init__()
        self._socket = socket.socket(fileno=os.dup(fd))
        self._socket.setblocking(False)
        self._agent_name = agent_name
        self._dropped = 0
        self._encode = msgspec.msgpack.Encoder().encode

    def emit(self, record: logging.LogRecord) -> None:
        """Send a record, or count it as lost."""
        try:
            traceback = ""
            if record.exc_info:
                traceback = logging.Formatter().formatException(record.exc_info)
            sent = SentRecord(
                self._agent_name,
                os.getpid(),
                record.name,
                record.levelno,
                _cut(record.getMessage()),
                _cut(traceback),
                record.created,
                record.pathname,
                record.lineno,
                record.funcName or "",
                record.threadName or "",
                self._dropped,
            )
            data = self._encode(sent)
        except Exception:  # noqa: BLE001 - a record that cannot be formatted
            self.handleError(record)
            return
        try:
            self._socket.send(data)
        except OSError:  # the program does not keep up, or is gone
            self._dropped += 1
        else:
            self._dropped = 0


def _cut(text: str) -> str:
    if len(text) <= MAX_RECORD // 4:
        return text
    return f"{text[: MAX_RECORD // 4]}... ({len(text):,} characters)"
