"""What `fcn-bench predict` says: one object, whose fields are the keys of its JSON; docs/predict.md lists them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fcnedge.runtime.command import table

from .forecast import BOUNDS, MAX_SIDE, Forecast

TOOL, FORMAT = "fcn-bench predict", 1
SHOWN_LAYERS = 8


@dataclass(frozen=True)
class PredictReport:
    """A forecast with what it was made of.

    graph: file that was read; precision: what it was read in; multiply_adds, weight_bytes, score_bytes: of one frame;
    shares: of the network's time, see Forecast.shares; fps: asked for; reaches, surely_reaches: the largest (height,
    width) of the same aspect that reaches it as expected, and at the slow end of the range. unknown: operations that
    were counted by their bytes.
    """

    tool: str
    format: int
    model: str
    graph: str
    precision: str
    multiply_adds: int
    weight_bytes: int
    score_bytes: int
    forecast: Forecast
    shares: dict[str, float]
    fps: float
    reaches: tuple[int, int] | None
    surely_reaches: tuple[int, int] | None
    unknown: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def title(self) -> str:
        """One line that says what this is."""
        device = self.forecast.device
        return f"{self.model}: expected on {device.title}, {device.mode}"

    def text(self) -> str:
        """The report as text tables."""
        slowest = table(self.layer_cells()[:SHOWN_LAYERS], LAYER_HEADER)
        parts = (*self.lines(), "", table(self.stage_cells(), STAGE_HEADER), "", slowest, *self.remarks())
        return "\n".join(parts)

    def lines(self) -> Iterator[str]:
        """One sentence each: the times, what bounds them, the sizes."""
        found, device = self.forecast, self.forecast.device
        yield (
            f"{self.model} ({self.graph}, {self.precision}) at {size_words(found.size)}, frames of "
            f"{size_words(found.frame)}, on {device.title}, {device.mode}: predicted, not measured"
        )
        yield f"frame to mask: {found.whole.shown()}, {found.fps.shown('frames/s')}"
        work = f"{self.multiply_adds / 1e9:.2f} G multiply-adds, {len(found.layers)} kernels"
        yield f"network: {found.network.shown()}, {work}"
        share = found.outside.expected / found.whole.expected
        yield f"outside the network: {found.outside.shown()}, {share:.0%} of the frame"
        bounds = ", ".join(f"{bound} {self.shares[bound]:.0%}" for bound in BOUNDS)
        yield f"of the network's time: {bounds}"
        yield f"{self.fps:g} frames/s: {self._reach()}"

    def layer_cells(self) -> list[tuple[str, str, str, str, float, float, float, str]]:
        """One line per kernel, the slowest first."""
        total = self.forecast.network.expected
        return [
            (
                each.layer.name,
                each.layer.operation,
                each.precision,
                each.unit,
                each.layer.multiply_adds / 1e6,
                each.layer.bytes / 1e6,
                each.ms,
                f"{each.bound} {each.ms / total:.0%}",
            )
            for each in sorted(self.forecast.layers, key=lambda each: -each.ms)
        ]

    def stage_cells(self) -> list[tuple[str, float]]:
        """One line per stage."""
        inside = [("network", self.forecast.network.expected)]
        stages = [(f"{each.name}{', if asked for' if each.optional else ''}", each.ms) for each in self.forecast.stages]
        return [*stages[:2], *inside, *stages[2:]]

    def remarks(self) -> Iterator[str]:
        """What to know before relying on it."""
        fitted = self.forecast.efficiency
        where = fitted.taken_from or fitted.architecture
        yield f"note: {fitted.share:.0%} of the peak rates, fitted to {fitted.networks} published times on {where}"
        if fitted.taken_from:
            yield (
                f"note: no published time of a network like these was found for {fitted.architecture}; the share is "
                f"{fitted.taken_from}'s, and the range is wider"
            )
        yield from (f"note: {text}" for text in self.notes)

    def _reach(self) -> str:
        if self.reaches is None:
            return "no size of this graph reaches it"
        if max(self.reaches) >= MAX_SIDE:
            return f"reached even at {size_words(self.reaches)} as expected; larger ones were not tried"
        sure = self.surely_reaches
        surely = (
            f"{size_words(sure)} even at the slow end of the range" if sure else "none at the slow end of the range"
        )
        return f"up to {size_words(self.reaches)} as expected, {surely}"


LAYER_HEADER = ("slowest kernels", "operation", "in", "on", "M multiply-adds", "MB", "ms", "bound by, share")
STAGE_HEADER = ("stage", "ms")


def size_words(size: tuple[int, int]) -> str:
    """(height, width) as `512x320`, width first."""
    return f"{size[1]}x{size[0]}"
