"""Errors of the Ray engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rustic_ai.core.errors import EngineError

INSTALL = "pip install 'rustic-multiprocess[ray]'"


@dataclass(eq=False, kw_only=True, repr=False)
class RayUnavailableError(EngineError, ConnectionError):
    """The Ray cluster cannot be reached, or is gone."""

    code: ClassVar[str] = "ray-unavailable"
    address: str
    reason: str

    def describe(self) -> str:
        """Name the address and the reason."""
        return f"no Ray cluster at {self.address}: {self.reason}"


@dataclass(eq=False, kw_only=True, repr=False)
class RayMissingError(EngineError, ImportError):
    """Ray is not installed."""

    code: ClassVar[str] = "ray-missing"
    summary: str = "the engine 'ray' needs Ray, which is not installed"
    hint: str = INSTALL
