"""What calibration says about one tensor, and the refusal of a range that cannot be used."""

from __future__ import annotations

import math
from collections.abc import Mapping

from fcnedge.calibration.ranges import TensorRange
from fcnedge.runtime.errors import UserError

TensorRanges = Mapping[str, TensorRange]
"""Name of each float activation of a graph → its calibrated range: the `tensors` of ranges.json."""


def largest_magnitude(ranges: TensorRanges, tensor: str) -> float:
    """max(|minimum|, |maximum|) of `tensor`. Raises UserError when it is missing, NaN or infinite."""
    found = _find(ranges, tensor)
    if not (math.isfinite(found.minimum) and math.isfinite(found.maximum)):
        raise _unusable(tensor, f"[{found.minimum:g}, {found.maximum:g}]", "two finite numbers are")
    return max(abs(found.minimum), abs(found.maximum))


def clipping_limit(ranges: TensorRanges, tensor: str) -> float:
    """Give the threshold of `tensor`. Raises UserError when it is missing, NaN, infinite, zero or negative."""
    threshold = _find(ranges, tensor).threshold
    if not (math.isfinite(threshold) and threshold > 0):
        raise _unusable(tensor, f"clipped at {threshold:g}", "a finite limit above zero is")
    return threshold


def never_negative(ranges: TensorRanges, tensor: str) -> bool:
    """Whether calibration saw no value of `tensor` below zero."""
    return _find(ranges, tensor).minimum >= 0


def _find(ranges: TensorRanges, tensor: str) -> TensorRange:
    try:
        return ranges[tensor]
    except KeyError:
        raise UserError(
            f"the ranges have no tensor {tensor}, which this graph computes; collect them again with "
            f"fcn-calibrate ranges."
        ) from None


def _unusable(tensor: str, got: str, needed: str) -> UserError:
    return UserError(
        f"the range of tensor {tensor} is {got}, where {needed} needed; collect the ranges again with fcn-calibrate "
        f"ranges, on pictures that the model segments, or leave out the layers that read it."
    )
