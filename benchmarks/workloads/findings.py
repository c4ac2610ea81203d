"""What one run of a workload on one peer has found."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.peers.peer import NotThereError


class Findings:
    """Values by measure, and reasons where there is none."""

    def __init__(self) -> None:
        self._values: dict[str, float] = {}
        self._absent: dict[str, str] = {}

    def add(self, measure: str, value: float | str) -> None:
        """Note a value, or why there is none."""
        if isinstance(value, str):
            self._absent[measure] = value
        else:
            self._values[measure] = value

    def add_all(
        self, measures: tuple[str, ...], work: Callable[[], Mapping[str, float | str]]
    ) -> None:
        """Note what `work` returns; where the peer cannot do it, that none of these is there."""
        try:
            found = work()
        except NotThereError as e:
            found = dict.fromkeys(measures, str(e))
        for measure in measures:
            self.add(measure, found[measure])

    def as_dict(self) -> dict[str, Any]:
        """Return them in JSON's types."""
        return {"values": self._values, "absent": self._absent}
