"""Ratios as bars with their intervals, on a scale that one slow row cannot flatten."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from ..report.svg import WIDTH, Scale, ticks

_TOP, _ROW, _BOTTOM = 12, 24, 34
_LETTER_PX, _WIDEST_PX = 7.0, 300.0
_CUT = 3.0
"""The axis ends at so many times the median row at the least: one row far beyond it is cut, and says its number."""


@dataclass(frozen=True)
class RatioBar:
    """One row: its ratio to the reference and the interval."""

    label: str
    ratio: float
    low: float
    high: float
    ours: bool


def ratio_bars(rows: Sequence[RatioBar]) -> str:
    """Horizontal bars from 0, a whisker for each interval, and a line at 1. SVG; colours come from the page."""
    middle = sorted(row.ratio for row in rows)[len(rows) // 2]
    end = min(max(row.high for row in rows), _CUT * max(middle, 1.0)) * 1.05
    height = _TOP + _ROW * len(rows) + _BOTTOM
    left = min(_WIDEST_PX, max(len(row.label) for row in rows) * _LETTER_PX + 14)
    right = max(len(_words(row)) for row in rows) * _LETTER_PX + 10
    x, base = Scale(0, end, left, WIDTH - right), height - _BOTTOM
    parts = []
    for mark in ticks(0, end):
        parts.append(f'<line class="grid" x1="{x(mark):.1f}" y1="{_TOP}" x2="{x(mark):.1f}" y2="{base}"/>')
        parts.append(_text(x(mark), base + 15, f"{mark:g}", "note middle"))
    for index, row in enumerate(rows):
        parts += _row(row, _TOP + _ROW * index, x)
    parts.append(f'<line class="mark" x1="{x(1):.1f}" y1="{_TOP}" x2="{x(1):.1f}" y2="{base}"/>')
    parts.append(_text(x.end_px, base + 30, "times the reference", "note end"))
    inside = "\n".join(parts)
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="ratios" '
        f'xmlns="http://www.w3.org/2000/svg">\n{inside}\n</svg>'
    )


def _row(row: RatioBar, top: float, x: Scale) -> list[str]:
    end, low, high = (x(min(value, x.high)) for value in (row.ratio, row.low, row.high))
    words, left, letters = _words(row), x.begin_px, int(x.begin_px / _LETTER_PX) - 1
    label = row.label if len(row.label) <= letters else f"{row.label[: letters - 1]}…"
    kind, middle = "bar" if row.ours else "whole", top + _ROW / 2
    title = f"<title>{escape(row.label)}: {words}</title>"
    place = f'x="{left:.1f}" y="{top + 4}" width="{end - left:.1f}" height="{_ROW - 9}"'
    return [
        _text(left - 8, middle + 4, label, "label end"),
        f'<rect class="{kind}" {place}>{title}</rect>',
        f'<line class="axis" x1="{low:.1f}" y1="{middle:.1f}" x2="{high:.1f}" y2="{middle:.1f}"/>',
        *(
            f'<line class="axis" x1="{at:.1f}" y1="{middle - 4:.1f}" x2="{at:.1f}" y2="{middle + 4:.1f}"/>'
            for at in (low, high)
        ),
        _text(max(end, high) + 5, middle + 4, words, "note"),
    ]


def _words(row: RatioBar) -> str:
    return f"{row.ratio:.2f} ({row.low:.2f} to {row.high:.2f})"


def _text(x: float, y: float, text: str, kind: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'
