"""Charts as SVG: one for a workload, a panel for each measure; readable in light and dark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from benchmarks.peers.catalogue import OURS, PEERS
from benchmarks.results import WorkloadResult
from benchmarks.statistics import Spread
from benchmarks.workloads.workload import Measure, Workload

_WIDTH, _LEFT, _RIGHT = 760, 170, 110
_ROW, _HEAD, _FOOT = 22, 34, 26
_WIDE = 30.0
"""Where the largest is so many times the smallest, only a logarithmic axis shows both."""
_STYLE = """
text { font: 12px system-ui, sans-serif; fill: #1f2328; }
.title { font-weight: 600; font-size: 13px; }
.note { fill: #59636e; font-size: 11px; }
.grid { stroke: #d1d9e0; stroke-width: 1; }
.peer { fill: #818b98; stroke: #818b98; }
.ours { fill: #0969da; stroke: #0969da; }
.name-ours { font-weight: 600; fill: #0969da; }
.range { stroke-width: 2; }
@media (prefers-color-scheme: light) { svg { color-scheme: light; } }
@media (prefers-color-scheme: dark) {
  svg { color-scheme: dark; }
  text { fill: #f0f6fc; }
  .note { fill: #9198a1; }
  .grid { stroke: #3d444d; }
  .peer { fill: #9198a1; stroke: #9198a1; }
  .ours { fill: #4493f8; stroke: #4493f8; }
  .name-ours { fill: #4493f8; }
}
"""


@dataclass(frozen=True)
class _Axis:
    """Where values stand; logarithmic, or from zero."""

    low: float
    high: float
    is_wide: bool

    @classmethod
    def over(cls, spreads: Sequence[Spread]) -> _Axis:
        low, high = min(s.low for s in spreads), max(s.high for s in spreads)
        if low > 0 and high / low > _WIDE:
            return cls(10 ** math.floor(math.log10(low)), 10 ** math.ceil(math.log10(high)), True)
        return cls(0.0, high or 1.0, False)

    def at(self, value: float) -> float:
        if self.is_wide:
            share = math.log10(value / self.low) / math.log10(self.high / self.low)
        else:
            share = value / self.high
        return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)

    def ticks(self) -> list[float]:
        if not self.is_wide:
            return [0.0, self.high / 2, self.high]
        decades = round(math.log10(self.high / self.low))
        return [self.low * 10**power for power in range(decades + 1)]


def chart(workload: Workload, result: WorkloadResult) -> str:
    """Draw a workload; measures that nobody has values for are left out."""
    parts, y = [], 8.0
    for measure in workload.measures:
        rows = [
            (name, spread)
            for name in PEERS
            if (peer := result.peers.get(name)) and (spread := peer.spread(measure.name))
        ]
        if rows:
            parts.append(_panel(measure, rows, y))
            y += _HEAD + _ROW * len(rows) + _FOOT
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {y:.0f}" '
        f'width="{_WIDTH}" height="{y:.0f}" role="img" aria-label="{escape(workload.title)}">\n'
        f"<style>{_STYLE}</style>\n" + "".join(parts) + "</svg>\n"
    )


def _panel(measure: Measure, rows: Sequence[tuple[str, Spread]], top: float) -> str:
    axis = _Axis.over([spread for _, spread in rows])
    bottom = top + _HEAD + _ROW * len(rows)
    better = "more is better" if measure.more_is_better else "less is better"
    scale = ", logarithmic" if axis.is_wide else ""
    found = [
        _text(0, top + 16, f"{measure.name}, {measure.unit}", "title"),
        _text(_WIDTH, top + 16, f"{better}{scale}", "note", "end"),
    ]
    for tick in axis.ticks():
        x = axis.at(tick)
        found.append(
            f'<line class="grid" x1="{x:.1f}" y1="{top + _HEAD - 6:.1f}" x2="{x:.1f}" '
            f'y2="{bottom:.1f}"/>\n'
        )
        found.append(_text(x, bottom + 13, number(tick), "note", "middle"))
    for index, (name, spread) in enumerate(rows):
        found.append(_row(name, spread, axis, top + _HEAD + _ROW * index + _ROW / 2))
    return "".join(found)


def _row(name: str, spread: Spread, axis: _Axis, y: float) -> str:
    kind = "ours" if name == OURS else "peer"
    x = axis.at(spread.median)
    if axis.is_wide:
        mark = f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="5"/>\n'
    else:
        width = max(1.0, x - _LEFT)
        mark = (
            f'<rect class="{kind}" x="{_LEFT}" y="{y - 5:.1f}" width="{width:.1f}" height="10" '
            'rx="2" stroke="none"/>\n'
        )
    low, high = axis.at(spread.low), axis.at(spread.high)
    return (
        _text(_LEFT - 10, y + 4, PEERS[name].title, f"name-{kind}", "end")
        + mark
        + f'<line class="{kind} range" x1="{low:.1f}" y1="{y:.1f}" x2="{high:.1f}" y2="{y:.1f}"/>\n'
        + _text(max(high, x) + 10, y + 4, number(spread.median), f"name-{kind}")
    )


def _text(x: float, y: float, text: str, kind: str, anchor: str = "start") -> str:
    return (
        f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">'
        f"{escape(text)}</text>\n"
    )


def number(value: float) -> str:
    """Write a value with three digits that say something."""
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"
