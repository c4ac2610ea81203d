"""Arrow tables and record batches: Arrow's own stream format, in a part."""

from __future__ import annotations

import importlib
import sys
from typing import Any

from rustic_ai.core.messaging.core.attachment import Part
from rustic_ai.core.messaging.core.payloads.piece import Piece

_ALIGNMENT = 8
"""Of what Arrow writes; it reads without a copy what still is."""


class TableKind:
    """Writes a table, or a batch, straight into its place; reads over it.

    Args:
        class_name: `Table` or `RecordBatch`.
    """

    def __init__(self, class_name: str) -> None:
        self._class_name = class_name
        self.name = f"pyarrow.{class_name}"

    def takes(self, cls: type) -> bool:
        """Say whether it is the class."""
        pyarrow = sys.modules.get("pyarrow")
        found = getattr(pyarrow, self._class_name, None)  # None: only parts of pyarrow are there
        return found is not None and issubclass(cls, found)

    def pack(self, value: Any) -> tuple[Any, Part]:
        """Note how many rows and columns; the schema is in the stream."""
        return [value.num_rows, value.num_columns], _Stream(value)

    def unpack(self, about: Any, data: memoryview) -> Any:  # noqa: ARG002 - of the protocol
        """Return the table over `data`, unless it is not aligned there."""
        pyarrow = _pyarrow()
        buffer = pyarrow.py_buffer(data)
        if buffer.address % _ALIGNMENT:
            buffer = pyarrow.py_buffer(bytes(data))
        with pyarrow.ipc.open_stream(buffer) as reader:
            whole = self._class_name == "Table"
            found = reader.read_all() if whole else reader.read_next_batch()
        found.validate()
        return found

    def describe(self, piece: Piece) -> dict[str, str]:
        """Tell rows and columns."""
        rows, columns = piece.about
        return {"arrow": f"{rows:,} rows, {columns} columns"}


class _Stream:
    """The source of a table as Arrow writes it."""

    def __init__(self, value: Any) -> None:
        self._value = value
        sink = _pyarrow().MockOutputStream()
        self._write(sink)
        self.nbytes: int = sink.size()

    def _write(self, sink: Any) -> None:
        with _pyarrow().ipc.new_stream(sink, self._value.schema) as writer:
            writer.write(self._value)

    def write_to(self, target: memoryview) -> None:
        """Write the stream."""
        pyarrow = _pyarrow()
        with pyarrow.FixedSizeBufferWriter(pyarrow.py_buffer(target)) as sink:
            self._write(sink)


def _pyarrow() -> Any:
    return importlib.import_module("pyarrow")
