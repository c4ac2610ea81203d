"""What was measured, as rows of medians, ratios and targets."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field


class MissingPeerError(Exception):
    """A peer is not installed; says how to get it."""


@dataclass
class Row:
    """One measured quantity over all repeats."""

    name: str
    unit: str
    values: list[float] = field(default_factory=list)
    missing: str = ""

    @property
    def median(self) -> float:
        """The median of the repeats."""
        return statistics.median(self.values)


@dataclass(frozen=True)
class Target:
    """A limit for the ratio of two rows, or for a row itself where `to` is empty."""

    text: str
    of: str
    to: str
    at_least: float | None = None
    at_most: float | None = None


class Book:
    """Collects the values of one run by section and name."""

    def __init__(self) -> None:
        self.sections: dict[str, dict[str, Row]] = {}

    def add(self, section: str, name: str, unit: str, value: float) -> None:
        """Note a value of one repeat."""
        row = self.sections.setdefault(section, {}).setdefault(name, Row(name, unit))
        row.values.append(value)

    def miss(self, section: str, name: str, hint: str) -> None:
        """Note that something could not be measured."""
        self.sections.setdefault(section, {})[name] = Row(name, "", missing=hint)

    def find(self, name: str) -> Row | None:
        """Return the row of a name, in whichever section."""
        rows = (s[name] for s in self.sections.values() if name in s)
        return next((row for row in rows if row.values), None)


@dataclass(frozen=True)
class Measurement:
    """Something that can be repeated: what it yields are (row, unit, value)."""

    section: str
    name: str
    run: Callable[[], Sequence[tuple[str, str, float]]]
    repeats: int | None = None
    """How often at most; None: as often as all."""


def measure(measurements: Sequence[Measurement], repeats: int) -> Book:
    """Run all, `repeats` times over, so that what disturbs the machine hits all alike."""
    book = Book()
    given_up: set[str] = set()
    for turn in range(repeats):
        for number, one in enumerate(measurements, 1):
            key = f"{one.section}: {one.name}"
            if key in given_up or turn >= (one.repeats or repeats):
                continue
            _progress(f"round {turn + 1}/{repeats}, {number}/{len(measurements)}: {key}")
            try:
                for name, unit, value in one.run():
                    book.add(one.section, name, unit, value)
            except MissingPeerError as e:
                book.miss(one.section, one.name, str(e))
                given_up.add(key)
            except Exception as e:  # noqa: BLE001 - one that fails does not cost the others
                book.miss(one.section, one.name, f"failed: {type(e).__name__}: {e}")
                given_up.add(key)
    _progress("")
    return book


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()


def show(book: Book, targets: Sequence[Target]) -> int:
    """Print everything; returns how many targets were missed."""
    for section, rows in book.sections.items():
        print(section)
        for row in rows.values():
            if row.missing:
                print(f"  {row.name:<58} skipped: {row.missing}")
            else:
                low, high = _number(min(row.values)), _number(max(row.values))
                print(f"  {row.name:<58} {_number(row.median):>11} {row.unit:<6} ({low} - {high})")
        print()
    print("Targets")
    return sum(_judge(book, target) for target in targets)


def _judge(book: Book, target: Target) -> bool:
    """Print how a target fares; True where it was missed."""
    of = book.find(target.of)
    to = book.find(target.to) if target.to else Row("", "", [1.0])
    if target.at_least is not None:
        limit = f"at least {target.at_least:g}"
    else:
        limit = f"at most {target.at_most:g}"
    if of is None or to is None:
        missing = target.of if of is None else target.to
        print(f"  {target.text:<68} {'?':>7}  {limit:<14} not measured: {missing}")
        return False
    ratio = of.median / to.median
    kept = ratio >= target.at_least if target.at_least is not None else True
    if target.at_most is not None:
        kept = ratio <= target.at_most
    print(f"  {target.text:<68} {ratio:>7.2f}  {limit:<14} {'ok' if kept else 'MISSED'}")
    return not kept


def _number(value: float) -> str:
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.3f}"


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that `share` of the values lie below."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
