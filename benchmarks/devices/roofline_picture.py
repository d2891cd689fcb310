"""The roofline: operations per second over operations per byte, both logarithmic. SVG; colours come from the page."""

from __future__ import annotations

import math
from collections.abc import Iterator
from html import escape

from ..report.svg import WIDTH, Scale
from .forecast import Forecast

_LEFT, _RIGHT, _TOP, _BOTTOM, _HEIGHT = 70, 20, 26, 44, 340


def roofline_picture(found: Forecast) -> str:
    """A dot for each kernel that computes, and the roofs of the device's memory, Tensor Cores and CUDA cores."""
    dots = [
        (2 * each.layer.multiply_adds / each.layer.bytes, 2 * each.layer.multiply_adds / (each.ms * 1e-3), each)
        for each in found.layers
        if each.layer.multiply_adds
    ]
    roofs = dict(_roofs(found))
    places = [place for place, _, _ in dots]
    low, high = min([1.0, *places]), max([1000.0, *places])
    bottom = min([rate for _, rate, _ in dots], default=min(roofs.values()) / 1e3)
    x = Scale(math.log10(low) - 0.1, math.log10(high) + 0.1, _LEFT, WIDTH - _RIGHT)
    y = Scale(math.log10(bottom) - 0.2, math.log10(max(roofs.values())) + 0.3, _HEIGHT - _BOTTOM, _TOP)
    parts = [*_grid(x, y)]
    for name, peak in roofs.items():
        parts.append(_roof(x, y, found.device.memory, peak, name))
    for place, rate, each in dots:
        kind = "dot best" if each.unit == "Tensor Cores" else "dot"
        title = f"{each.layer.name}: {place:.0f} operations a byte, {rate / 1e9:.0f} G a second, {each.bound}"
        parts.append(
            f'<circle class="{kind}" cx="{x(math.log10(place)):.1f}" cy="{y(math.log10(rate)):.1f}" r="3.5">'
            f"<title>{escape(title)}</title></circle>"
        )
    inside = "\n".join(parts)
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {_HEIGHT}" role="img" aria-label="roofline" '
        f'xmlns="http://www.w3.org/2000/svg">\n{inside}\n</svg>'
    )


def _roofs(found: Forecast) -> Iterator[tuple[str, float]]:
    """Each unit in each precision that a kernel runs in, with its peak."""
    for unit, precision in sorted({(each.unit, each.precision) for each in found.layers if each.unit}):
        tensor = unit == "Tensor Cores"
        yield f"{unit}, {precision.upper()}", found.device.peak(precision, tensor=tensor)


def _roof(x: Scale, y: Scale, memory: float, peak: float, name: str) -> str:
    """A line along the memory's slope up to the peak, then flat."""
    knee = min(max(math.log10(peak / memory), x.low), x.high)
    begin = max(x.low, y.low - math.log10(memory))
    top = math.log10(peak)
    points = [(begin, begin + math.log10(memory)), (knee, top), (x.high, top)]
    path = " ".join(f"{x(place):.1f},{y(min(value, top)):.1f}" for place, value in points)
    return (
        f'<polyline class="mark" fill="none" points="{path}"/>'
        f'<text class="note end" x="{x.end_px:.1f}" y="{y(top) - 5:.1f}">{escape(name)} {peak / 1e12:.3g} T/s</text>'
    )


def _grid(x: Scale, y: Scale) -> Iterator[str]:
    base = _HEIGHT - _BOTTOM
    for power in range(math.ceil(x.low), math.floor(x.high) + 1):
        yield f'<line class="grid" x1="{x(power):.1f}" y1="{_TOP}" x2="{x(power):.1f}" y2="{base}"/>'
        yield f'<text class="note middle" x="{x(power):.1f}" y="{base + 15}">{10.0**power:g}</text>'
    for power in range(math.ceil(y.low), math.floor(y.high) + 1):
        yield f'<line class="grid" x1="{_LEFT}" y1="{y(power):.1f}" x2="{WIDTH - _RIGHT}" y2="{y(power):.1f}"/>'
        yield f'<text class="note end" x="{_LEFT - 6}" y="{y(power) + 4:.1f}">{10.0 ** (power - 9):g}</text>'
    yield f'<text class="note end" x="{x.end_px:.1f}" y="{base + 32}">operations per byte</text>'
    yield '<text class="note" x="4" y="12">G operations per second</text>'
