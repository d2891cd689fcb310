"""Charts as SVG text: scales with round ticks, and the pictures of the reports.

No colour is written here: the page's style sheet gives each class one, for light, dark and print.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

WIDTH = 720
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 16, 22, 40
_ROW = 22
_LABEL_PX = 6.6
"""Width of one letter at 12 px, near enough to keep labels inside."""


@dataclass(frozen=True)
class Scale:
    """Values → pixels, linear."""

    low: float
    high: float
    begin_px: float
    end_px: float

    def __call__(self, value: float) -> float:
        """The place of `value`."""
        share = (value - self.low) / ((self.high - self.low) or 1.0)
        return self.begin_px + share * (self.end_px - self.begin_px)


@dataclass(frozen=True)
class Bar:
    """One row of a bar chart. start: where its bar begins; text: beside it; title: what a pointer shows."""

    label: str
    value: float
    text: str
    title: str = ""
    start: float = 0.0
    kind: str = "bar"


@dataclass(frozen=True)
class Point:
    """One dot of a scatter chart. best: whether it lies on the frontier, which is drawn through such points."""

    label: str
    x: float
    y: float
    best: bool = False


def ticks(low: float, high: float, count: int = 6) -> list[float]:
    """About `count` round numbers from `low` to `high`: 1, 2 or 5 times a power of ten apart."""
    span = high - low
    if not span > 0 or not math.isfinite(span):
        return [low]
    rough = span / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [place * step for place in range(first, math.floor(high / step + 1e-9) + 1)]


def histogram(values: Sequence[float], marks: Sequence[tuple[str, float]], unit: str, *, height: int = 240) -> str:
    """How often which value occurs. marks: lines across it, (label, value). What lies far out shares the last bin."""
    data = np.asarray(values, float)
    low, far = float(data.min()), float(np.percentile(data, 99))
    high = min(float(data.max()), far + 0.25 * (far - low))
    if high <= low:
        low, high = low - 0.5, high + 0.5
    bins = min(60, max(8, int(2 * np.sqrt(len(data)))))
    counts, edges = np.histogram(np.minimum(data, high), bins=bins, range=(low, high))
    x = Scale(low, high, _LEFT, WIDTH - _RIGHT)
    y = Scale(0, 1.25 * float(counts.max()), height - _BOTTOM, _TOP)  # room for the marks' labels
    parts = [*_y_axis(y, "frames"), *_x_axis(x, height, unit)]
    for count, begin, end in zip(counts, edges[:-1], edges[1:], strict=True):
        if count:
            title = f"{begin:.2f} to {end:.2f} {unit}: {count}"
            parts.append(
                _rect(x(begin) + 0.5, y(count), max(0.5, x(end) - x(begin) - 1), y(0) - y(count), "bar", title)
            )
    for index, (label, value) in enumerate(mark for mark in marks if low <= mark[1] <= high):
        parts.append(_line(x(value), _TOP, x(value), height - _BOTTOM, "mark"))
        parts.append(_beside(x(value), _TOP + 10 + 13 * index, label))
    over = int(np.count_nonzero(data > high))
    if over:
        parts.append(
            _text(WIDTH - _RIGHT, height - _BOTTOM - 6, f"{over} slower, up to {data.max():.1f} {unit}", "note end")
        )
    return _svg(parts, height, "histogram")


def timeline(
    seconds: Sequence[float],
    values: Sequence[float],
    warm_up: Sequence[float],
    levels: Sequence[tuple[str, float, float, float]],
    unit: str,
    *,
    height: int = 260,
) -> str:
    """One dot per frame. warm_up: those left out, before the rest. levels: (label, from s, to s, value) lines."""
    everything = [*values, *warm_up]
    begin = 0.0 if warm_up else float(seconds[0])
    x = Scale(begin, max(float(seconds[-1]), begin + 1e-3), _LEFT, WIDTH - _RIGHT)
    low = min(0.0, *everything)
    y = Scale(low, max(everything) * 1.15 or 1.0, height - _BOTTOM, _TOP)
    parts = [*_y_axis(y, unit), *_x_axis(x, height, "seconds")]
    if warm_up:
        first = float(seconds[0])
        parts.append(_rect(x(0), _TOP, max(1.0, x(first) - x(0)), height - _BOTTOM - _TOP, "shade", "warm-up"))
        parts.append(_text(x(0) + 4, _TOP + 12, f"warm-up: {len(warm_up)} left out", "note"))
        moments = np.cumsum(warm_up) * first / max(sum(warm_up), 1e-9)
        parts += [_dot(x(moment), y(value), "dot out") for moment, value in zip(moments, warm_up, strict=True)]
    parts += [_dot(x(moment), y(value), "dot") for moment, value in zip(seconds, values, strict=True)]
    for index, (label, start, end, value) in enumerate(levels):
        parts.append(_line(x(start), y(value), x(end), y(value), "mark"))
        parts.append(_text(x(end) if index else x(start), y(value) - 5, label, "note end" if index else "note"))
    return _svg(parts, height, "timeline")


def bars(rows: Sequence[Bar], unit: str) -> str:
    """Horizontal bars, one per row, from `start` on: a waterfall where each starts at the end of the one before."""
    height = _TOP + _ROW * len(rows) + _BOTTOM
    widest = min(300.0, max((len(row.label) for row in rows), default=0) * _LABEL_PX + 14)
    room = max((len(row.text) for row in rows), default=0) * _LABEL_PX + 12
    x = Scale(0, max((row.start + row.value for row in rows), default=0) or 1.0, widest, WIDTH - _RIGHT - room)
    parts = _x_axis(x, height, unit)
    letters = int(widest / _LABEL_PX)
    for index, row in enumerate(rows):
        top = _TOP + _ROW * index
        label = row.label if len(row.label) <= letters else f"{row.label[: letters - 1]}…"
        parts.append(_text(widest - 8, top + 15, label, "label end"))
        length = max(0.75, x(row.start + row.value) - x(row.start))
        parts.append(_rect(x(row.start), top + 4, length, _ROW - 7, row.kind, row.title or f"{row.label}: {row.text}"))
        parts.append(_text(x(row.start) + length + 5, top + 15, row.text, "note"))
    return _svg(parts, height, "bars")


def scatter(points: Sequence[Point], x_title: str, y_title: str, *, y_span: float = 0, height: int = 360) -> str:
    """Labelled dots, and a stair through the best of them: what each place on the x axis can have at most.

    y_span: what the y axis covers at least, so that noise does not look like a difference.
    """
    x = _around([point.x for point in points], 0, _LEFT, WIDTH - _RIGHT)
    y = _around([point.y for point in points], y_span, height - _BOTTOM, _TOP)
    parts = [*_y_axis(y, y_title), *_x_axis(x, height, x_title)]
    best = sorted((point for point in points if point.best), key=lambda point: point.x)
    ends = [*(x(point.x) for point in best[1:]), x.end_px]
    for place, (point, end) in enumerate(zip(best, ends, strict=True)):
        parts.append(_line(x(point.x), y(point.y), end, y(point.y), "mark"))
        if place + 1 < len(best):
            parts.append(_line(end, y(point.y), end, y(best[place + 1].y), "mark"))
    taken: list[tuple[float, float, float]] = []
    for point in sorted(points, key=lambda each: (not each.best, each.y)):
        parts.append(_dot(x(point.x), y(point.y), "dot best" if point.best else "dot", 4.5, point.label))
        parts.append(_label(x(point.x), y(point.y), point.label, taken))
    return _svg(parts, height, "scatter")


def _around(values: Sequence[float], span: float, begin_px: float, end_px: float) -> Scale:
    """A scale with a tenth of room at both ends, and of at least `span`."""
    low, high = min(values), max(values)
    room = max((high - low) / 10, (span - (high - low)) / 2) or abs(high) / 10 or 1.0
    return Scale(low - room, high + room, begin_px, end_px)


def _label(x: float, y: float, text: str, taken: list[tuple[float, float, float]]) -> str:
    """A dot's name above or below it, further out until it meets none of `taken`, (left, right, base) each."""
    width = _LABEL_PX * len(text)
    left = x + 5 if x + 5 + width < WIDTH else x - 5 - width
    bases = (y + (18 + 13 * step if below else -8 - 13 * step) for step in range(40) for below in (False, True))
    base = next(
        base
        for base in bases
        if not any(left < right and begin < left + width and abs(base - other) < 13 for begin, right, other in taken)
    )
    taken.append((left, left + width, base))
    return _text(left, base, text, "note")


def _svg(parts: Iterable[str], height: float, name: str) -> str:
    inside = "\n".join(parts)
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{escape(name)}" '
        f'xmlns="http://www.w3.org/2000/svg">\n{inside}\n</svg>'
    )


def _x_axis(x: Scale, height: float, title: str) -> list[str]:
    base = height - _BOTTOM
    marks = ticks(x.low, x.high)
    parts = [_line(x(mark), _TOP, x(mark), base, "grid") for mark in marks]
    parts += [_text(x(mark), base + 15, _number(mark), "note middle") for mark in marks]
    parts.append(_line(x.begin_px, base, x.end_px, base, "axis"))
    parts.append(_text(x.end_px, base + 31, title, "note end"))
    return parts


def _y_axis(y: Scale, title: str) -> list[str]:
    marks = ticks(y.low, y.high, 5)
    parts = [_line(_LEFT, y(mark), WIDTH - _RIGHT, y(mark), "grid") for mark in marks]
    parts += [_text(_LEFT - 6, y(mark) + 4, _number(mark), "note end") for mark in marks]
    parts.append(_text(4, 11, title, "note"))
    return parts


def _number(value: float) -> str:
    return f"{round(value, 9):g}"


def _rect(left: float, top: float, width: float, height: float, kind: str, title: str) -> str:
    return (
        f'<rect class="{kind}" x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" height="{height:.1f}">'
        f"<title>{escape(title)}</title></rect>"
    )


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _dot(x: float, y: float, kind: str, radius: float = 1.8, title: str = "") -> str:
    inside = f"<title>{escape(title)}</title>" if title else ""
    return f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{radius}">{inside}</circle>'


def _beside(x: float, y: float, text: str) -> str:
    """A label to the right of a line at `x`, or to its left where there is no room."""
    fits = x + 3 + _LABEL_PX * len(text) < WIDTH
    return _text(x + 3 if fits else x - 3, y, text, "note" if fits else "note end")


def _text(x: float, y: float, text: str, kind: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'
