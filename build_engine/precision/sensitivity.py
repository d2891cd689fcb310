"""Which convolutions cost accuracy in INT8: each one alone in INT8, and each one alone left in float.

Both against FP32, with float32 around the Q/DQ nodes, so that nothing but INT8 is measured:

    alone      the convolution in INT8, everything else in float: what it costs by itself
    without    all of the default placement in INT8, but it: what is left of the cost when it is spared

Worst first means: convolutions whose drop of mIoU alone is beyond its noise (SIGNIFICANT standard errors), the largest
drop first; then all others, the lowest SQNR first. A drop of a tenth of a point on a few dozen pictures is mostly the
luck of some hundred pixels on the borders of objects, and would shuffle the list; SQNR averages thousands of scores per
picture, and ranks layers alike on any dozen pictures.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from fcnedge.calibration.activations import load_graph
from fcnedge.calibration.ranges import Ranges
from fcnedge.runtime.command import Progress, table

from .evaluation import LabelledPictures, Measured, int8_bytes
from .placement import Placement, place

SIGNIFICANT = 3.0
"""Standard errors beyond which a drop is not noise; of a hundred layers that cost nothing, 0.13 exceed it by chance."""


@dataclass(frozen=True)
class LayerSensitivity:
    """One convolution. float_reason: why it stays in float by default, None when it does not.

    alone: it in INT8 and nothing else; without: the default placement but it, None for one that is not in it.
    A Measured of None, with alone_sqnr_db given: mIoU was not asked for.
    """

    layer: str
    float_reason: str | None
    alone_sqnr_db: float
    alone: Measured | None = None
    without: Measured | None = None

    @property
    def badness(self) -> tuple[float, float]:
        """Sort key, worst first: drop of mIoU where it is beyond noise, then SQNR."""
        significant = self.alone is not None and self.alone.drop > SIGNIFICANT * self.alone.drop_error
        return (-self.alone.drop if significant and self.alone is not None else 0.0, self.alone_sqnr_db)


@dataclass(frozen=True)
class Sensitivity:
    """All convolutions that can be quantised, worst first. miou_fp32: share of 1; default: the default placement."""

    pictures: int
    miou_fp32: float
    default: Measured
    layers: tuple[LayerSensitivity, ...]

    def text(self, top: int | None = None) -> str:
        """Text table of the worst `top` layers, all by default."""
        shown = self.layers[:top]
        rest = len(self.layers) - len(shown)
        header = ("layer", "by default", "alone: SQNR dB", "drop", "±", "without it: SQNR dB", "drop", "±")
        return "\n".join(
            (
                table([_row(layer) for layer in shown], header),
                *([f"and {rest} more, which cost less"] if rest else []),
                f"all default layers in INT8: SQNR {self.default.sqnr_db:.1f} dB, drop {_points(self.default)}",
                f"drop in points of mIoU below FP32's {100 * self.miou_fp32:.2f}% on {self.pictures} pictures, ± its "
                "standard error",
            )
        )


def measure_sensitivity(
    fp32: Path,
    ranges: Ranges,
    pictures: LabelledPictures,
    *,
    exclude: Collection[str] = (),
    top: int | None = None,
) -> Sensitivity:
    """Measure every convolution of a fused FP32 graph that can be quantised: stem, depthwise and score layers too.

    exclude: convolutions left in float throughout; top: mIoU of only so many, those of lowest SQNR alone, None for all.
    Two graphs are built and run over the pictures per layer. Raises UserError for an unknown name in `exclude`, and
    what `to_int8` and `LabelledPictures.measure` raise.
    """
    default = place(load_graph(fp32), exclude=exclude)
    reasons = {each.node: each.reason for each in default.excluded}
    measured = pictures.measure(int8_bytes(fp32, ranges.tensors, default))
    layers = [
        LayerSensitivity(name, reasons.get(name), sqnr_db)
        for name, sqnr_db in rank_by_sqnr(fp32, ranges, pictures, quantisable(fp32, exclude)).items()
    ]
    chosen = len(layers) if top is None else min(top, len(layers))
    with contextlib.closing(Progress()) as progress:
        for index, layer in enumerate(layers[:chosen]):
            progress(f"mIoU, {layer.layer}", index, chosen)
            layers[index] = _with_miou(layer, fp32, ranges, pictures, exclude)
    return Sensitivity(len(pictures), pictures.miou, measured, tuple(sorted(layers, key=lambda each: each.badness)))


def rank_by_sqnr(fp32: Path, ranges: Ranges, pictures: LabelledPictures, layers: Sequence[str]) -> dict[str, float]:
    """SQNR in dB of the scores with each of `layers` alone in INT8, lowest first. Raises as measure_sensitivity."""
    found: dict[str, float] = {}
    with contextlib.closing(Progress()) as progress:
        for index, layer in enumerate(layers):
            progress(f"score noise, {layer}", index, len(layers))
            found[layer] = pictures.sqnr_db(int8_bytes(fp32, ranges.tensors, _placed(fp32, only={layer})))
    return dict(sorted(found.items(), key=lambda item: item[1]))


def quantisable(fp32: Path, exclude: Collection[str] = ()) -> tuple[str, ...]:
    """Names of all convolutions with constant weights but those in `exclude`, in the order of the graph."""
    placement = place(load_graph(fp32), exclude=exclude, stem=True, depthwise=True, scores=True)
    return tuple(layer.node for layer in placement.layers)


def _with_miou(
    layer: LayerSensitivity, fp32: Path, ranges: Ranges, pictures: LabelledPictures, exclude: Collection[str]
) -> LayerSensitivity:
    alone = pictures.measure(int8_bytes(fp32, ranges.tensors, _placed(fp32, only={layer.layer})))
    without = None
    if layer.float_reason is None:
        spared = _placed(fp32, exclude={*exclude, layer.layer})
        without = pictures.measure(int8_bytes(fp32, ranges.tensors, spared))
    return LayerSensitivity(layer.layer, layer.float_reason, layer.alone_sqnr_db, alone, without)


def _placed(fp32: Path, *, exclude: Collection[str] = (), only: Collection[str] | None = None) -> Placement:
    return place(load_graph(fp32), exclude=exclude, only=only)


def _row(layer: LayerSensitivity) -> tuple[str | float, ...]:
    default = "INT8" if layer.float_reason is None else "float"
    alone = ("", "") if layer.alone is None else _rounded(layer.alone.drop, layer.alone.drop_error)
    without = ("", "", "")
    if layer.without is not None:
        without = _rounded(layer.without.sqnr_db, layer.without.drop, layer.without.drop_error)
    return (layer.layer, default, *_rounded(layer.alone_sqnr_db), *alone, *without)


def _rounded(*values: float) -> tuple[float, ...]:
    return tuple(round(value, 2) for value in values)


def _points(measured: Measured) -> str:
    error = "" if math.isnan(measured.drop_error) else f" ± {measured.drop_error:.2f}"
    return f"{measured.drop:.2f}{error}"
