"""Log records of an agent, sent to the program's own handlers without ever blocking the agent."""

from __future__ import annotations

import contextlib
import logging
import os
import socket

import msgspec

MAX_RECORD = 60_000
"""Bytes of a record's text that travel; the rest is cut and said so."""
_LAST_WORD = 1.0
"""Seconds that an agent which ends may wait for room to tell how many records were lost."""


class SentRecord(msgspec.Struct, frozen=True, array_like=True):
    """What of a log record travels."""

    agent_name: str
    pid: int
    logger: str
    level: int
    """0 where there is no record, but only the word that others were lost."""
    message: str
    traceback: str
    created: float
    path: str
    line: int
    function: str
    thread: str
    dropped: int
    """Records of this process that were lost just before."""

    @classmethod
    def of(cls, agent_name: str, record: logging.LogRecord, dropped: int) -> SentRecord:
        """Take what travels from a record."""
        traceback = ""
        if record.exc_info:
            traceback = logging.Formatter().formatException(record.exc_info)
        return cls(
            agent_name,
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
            dropped,
        )


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
            data = self._encode(SentRecord.of(self._agent_name, record, self._dropped))
        except Exception:  # noqa: BLE001 - a record that cannot be formatted
            self.handleError(record)
            return
        try:
            self._socket.send(data)
        except OSError:  # the program does not keep up, or is gone
            self._dropped += 1
        else:
            self._dropped = 0

    def close(self) -> None:
        """Tell of what was lost last, which no record will; the agent ends. Idempotent."""
        with self.lock or contextlib.nullcontext():
            dropped, self._dropped = self._dropped, 0
            if dropped:
                last = logging.LogRecord("", logging.NOTSET, "", 0, "", (), None)
                self._socket.settimeout(_LAST_WORD)  # stays non-blocking for those who share it
                with contextlib.suppress(OSError):  # nobody hears it, or not in time
                    self._socket.send(self._encode(SentRecord.of(self._agent_name, last, dropped)))
            self._socket.close()
        super().close()


def _cut(text: str) -> str:
    if len(text) <= MAX_RECORD // 4:
        return text
    return f"{text[: MAX_RECORD // 4]}... ({len(text):,} characters)"
