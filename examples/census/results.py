"""The census: all modules, ranked, and their totals."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from examples.census.measures import ModuleMeasures, Unparsable


class Totals(BaseModel):
    """Sums over all modules."""

    model_config = ConfigDict(frozen=True)

    modules: int
    unparsable: int
    lines: int
    code_lines: int
    functions: int
    classes: int
    complexity: int


class Census(BaseModel):
    """What was found in a folder."""

    model_config = ConfigDict(frozen=True)

    folder: str
    modules: tuple[ModuleMeasures, ...] = Field(description="The most complex first.")
    unparsable: tuple[Unparsable, ...]

    @classmethod
    def of(cls, folder: Path, found: Iterable[ModuleMeasures | Unparsable]) -> Census:
        """Rank what was found, in whatever order it came."""
        modules: list[ModuleMeasures] = []
        unparsable: list[Unparsable] = []
        for item in found:
            if isinstance(item, ModuleMeasures):
                modules.append(item)
            else:
                unparsable.append(item)
        modules.sort(key=lambda m: (-m.complexity, -m.lines, m.path))
        unparsable.sort(key=lambda u: u.path)
        return cls(folder=str(folder), modules=tuple(modules), unparsable=tuple(unparsable))

    @property
    def totals(self) -> Totals:
        """Sums over all modules."""
        return Totals(
            modules=len(self.modules),
            unparsable=len(self.unparsable),
            lines=sum(m.lines for m in self.modules),
            code_lines=sum(m.code_lines for m in self.modules),
            functions=sum(m.functions for m in self.modules),
            classes=sum(m.classes for m in self.modules),
            complexity=sum(m.complexity for m in self.modules),
        )
