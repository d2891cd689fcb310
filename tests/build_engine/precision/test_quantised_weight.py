"""INT8 weights: scales, rounding, refusals."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fcnedge.build_engine.precision.quantised_weight import quantise_weight, stored_scale
from fcnedge.runtime.errors import UserError


def test_hand_computed_channel():
    weight = np.array([-127, 63.5, 0.5, 1.5, -2.5, 0.49], np.float32).reshape(1, 6, 1, 1)
    found = quantise_weight(weight, "w", half_scales=False)
    assert found.scales.tolist() == [1.0]
    assert found.integers.reshape(-1).tolist() == [-127, 64, 0, 2, -2, 0]  # ties go to the even one
    assert (found.integers.dtype, found.scales.dtype) == (np.int8, np.float32)
    assert found.sqnr_db == pytest.approx(10 * np.log10(np.square(weight.astype(np.float64)).sum() / 1.2401), abs=1e-3)


@settings(max_examples=60, deadline=None)
@given(
    channels=st.integers(1, 5),
    taps=st.integers(1, 30),
    magnitude=st.integers(-22, 12),
    half=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_every_weight_is_within_half_a_step(channels, taps, magnitude, half, seed):
    weight = (np.random.default_rng(seed).standard_normal((channels, taps, 1, 1)) * 2.0**magnitude).astype(np.float32)
    found = quantise_weight(weight, "w", half_scales=half)
    largest = np.abs(weight).max(axis=(1, 2, 3)).astype(np.float64)
    if half:
        assert (found.scales.astype(np.float16).astype(np.float32) == found.scales).all()
        assert (found.scales * 127.0 >= largest).all()
    else:
        np.testing.assert_array_equal(found.scales, (largest / 127).astype(np.float32))
    for channel in range(channels):
        scale = Fraction(float(found.scales[channel]))
        for exact, integer in zip(weight[channel].ravel(), found.integers[channel].ravel(), strict=True):
            # 2^-24: by so much rounding the scale to float32 may push the largest weight beyond 127 steps
            slack = 0 if half else 127 * Fraction(1, 2**24)
            assert abs(Fraction(float(exact)) - int(integer) * scale) <= scale * (Fraction(1, 2) + slack)
    assert np.abs(found.integers.astype(int)).max() == 127 or half


def test_channel_of_zeros_stays_zero():
    weight = np.zeros((2, 3, 1, 1), np.float32)
    weight[1] = 2
    for half in (False, True):
        found = quantise_weight(weight, "w", half_scales=half)
        assert not found.integers[0].any()
        assert found.scales[0] > 0
        np.testing.assert_array_equal(found.integers[1], np.full((3, 1, 1), found.integers[1, 0, 0]))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_weight_that_is_not_finite_is_refused_by_name_and_channel(bad):
    weight = np.ones((3, 2, 1, 1), np.float32)
    weight[2, 1] = bad
    with pytest.raises(UserError, match=r"the weight fc6\.weight has NaN or infinity in output channel 2"):
        quantise_weight(weight, "fc6.weight", half_scales=False)


def test_half_scale_is_the_next_float16_not_below():
    every = np.arange(1, 0x7C00, dtype=np.uint16).view(np.float16).astype(np.float64)
    np.testing.assert_array_equal(stored_scale(every, half=True), every.astype(np.float32))
    between = every[:-1] + 0.25 * np.diff(every)
    np.testing.assert_array_equal(stored_scale(between, half=True), every[1:].astype(np.float32))


def test_scale_beyond_float16_stays_float32():
    assert stored_scale(np.array(1e6), half=True) == np.float32(1e6)


def test_smallest_scale_is_above_zero():
    assert stored_scale(np.array(1e-300), half=False) > 0
    assert stored_scale(np.array(1e-300), half=True) == np.float32(2.0**-24)
