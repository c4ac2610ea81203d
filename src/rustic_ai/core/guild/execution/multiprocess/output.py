"""What agents print, line by line with their names, so that nobody has to guess who said it."""

from __future__ import annotations

import io
import os
import sys
import threading
from typing import BinaryIO, TextIO

from rustic_ai.core.guild.execution.multiprocess.crash_file import LastLines


class AttributedStream(io.TextIOBase):
    """Writes whole lines, each behind a prefix and in one piece, to where another stream goes.

    Args:
        stream: the stream whose descriptor is written to.
        prefix: comes before every line.
        last_lines: remembers what was written.
    """

    def __init__(self, stream: TextIO, prefix: str, last_lines: LastLines | None = None) -> None:
        super().__init__()
        self._stream = stream
        self._prefix = prefix
        self._last_lines = last_lines
        self._begun = threading.local()  # a line that a thread has begun is its own

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """How text becomes bytes."""
        return self._stream.encoding

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        """What is done with text that has no bytes."""
        return self._stream.errors

    @property
    def buffer(self) -> BinaryIO:
        """The stream of bytes underneath, which nobody attributes."""
        return self._stream.buffer

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._stream.fileno()

    def isatty(self) -> bool:
        """Say whether a terminal shows it."""
        return self._stream.isatty()

    def writable(self) -> bool:
        """Say that it can be written to."""
        return True

    def write(self, text: str) -> int:
        """Take text; what ends with a line break is written."""
        begun = getattr(self._begun, "text", "") + text
        lines, newline, self._begun.text = begun.rpartition("\n")
        if newline:
            self._write_lines(lines)
        return len(text)

    def finish(self) -> None:
        """Write the line that this thread has begun."""
        rest = getattr(self._begun, "text", "")
        self._begun.text = ""
        if rest:
            self._write_lines(rest)

    def _write_lines(self, lines: str) -> None:
        text = "".join(f"{self._prefix}{line}\n" for line in lines.split("\n"))
        data = text.encode(self.encoding, "backslashreplace")
        if self._last_lines is not None:
            self._last_lines.add(lines.encode(errors="backslashreplace") + b"\n")
        self._stream.flush()
        while data:
            data = data[os.write(self._stream.fileno(), data) :]


def attribute_output(agent_name: str, crash_file: int) -> None:
    """Have what this process prints, and logs to its standard error, carry the agent's name."""
    prefix = f"[{agent_name} {os.getpid()}] "
    if sys.stdout is not None:
        sys.stdout = AttributedStream(sys.stdout, prefix)
    if sys.stderr is not None:
        sys.stderr = AttributedStream(sys.stderr, prefix, LastLines(crash_file))


def finish_output() -> None:
    """Write what was begun."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, AttributedStream):
            stream.finish()
