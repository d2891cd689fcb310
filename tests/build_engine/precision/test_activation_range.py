"""Ranges that cannot be used are refused by the tensor's name."""

from __future__ import annotations

import math

import pytest

from fcnedge.build_engine.precision.activation_range import clipping_limit, largest_magnitude, never_negative
from fcnedge.calibration.ranges import TensorRange
from fcnedge.runtime.errors import UserError

RANGES = {
    "relu": TensorRange(0.0, 6.0, 5.5),
    "signed": TensorRange(-8.0, 2.0, 4.0),
    "dead": TensorRange(0.0, 0.0, 0.0),
    "backwards": TensorRange(-1.0, 1.0, -1.0),
    "nan": TensorRange(math.nan, math.nan, math.nan),
    "half_nan": TensorRange(0.0, math.nan, 1.0),
    "infinite": TensorRange(0.0, math.inf, math.inf),
}


def test_usable_ranges():
    assert (largest_magnitude(RANGES, "relu"), largest_magnitude(RANGES, "signed")) == (6, 8)
    assert (clipping_limit(RANGES, "relu"), clipping_limit(RANGES, "signed")) == (5.5, 4)
    assert (never_negative(RANGES, "relu"), never_negative(RANGES, "signed")) == (True, False)
    assert largest_magnitude(RANGES, "dead") == 0


@pytest.mark.parametrize(("tensor", "limit"), [("dead", "0"), ("backwards", "-1"), ("nan", "nan"), ("infinite", "inf")])
def test_bad_threshold_is_refused(tensor, limit):
    with pytest.raises(UserError, match=f"^the range of tensor {tensor} is clipped at {limit}, where a finite"):
        clipping_limit(RANGES, tensor)


@pytest.mark.parametrize("tensor", ["nan", "half_nan", "infinite"])
def test_bad_extremes_are_refused(tensor):
    with pytest.raises(UserError, match=f"^the range of tensor {tensor} is .*, where two finite numbers are needed"):
        largest_magnitude(RANGES, tensor)


@pytest.mark.parametrize("question", [clipping_limit, largest_magnitude, never_negative])
def test_missing_tensor_is_refused(question):
    with pytest.raises(UserError, match="the ranges have no tensor fc6, which this graph computes"):
        question(RANGES, "fc6")
