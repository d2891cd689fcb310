"""The growing histogram against np.histogram over all values at once, whatever their order."""

from __future__ import annotations

import math
from random import Random

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fcnedge.calibration.histogram import BINS, Histogram

VALUES = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=1, max_dims=4, max_side=6),
    elements=st.floats(-1e6, 1e6, width=32) | st.floats(-1, 1, width=32),
)


def counted_at_once(values: np.ndarray, exponent: int) -> np.ndarray:
    edges = np.arange(BINS + 1, dtype=np.float64) * 2.0**exponent / BINS
    return np.histogram(np.abs(values.astype(np.float64)), edges)[0]


@given(VALUES)
def test_counts_are_numpys(values):
    histogram = Histogram.of(values)
    peak = float(np.abs(values).max())
    if peak > 1e-6:
        assert peak < 2.0**histogram.exponent <= 2 * peak, "the bins reach just beyond the largest value"
    np.testing.assert_array_equal(histogram.counts, counted_at_once(values, histogram.exponent))
    assert histogram.counts.sum() == values.size
    assert (histogram.minimum, histogram.maximum, histogram.peak) == (values.min(), values.max(), peak)


@example([np.zeros(1, np.float32), np.array([0.25], np.float32)], Random(0))
@given(st.lists(VALUES, min_size=1, max_size=5), st.randoms())
def test_sum_of_parts_in_any_order_is_the_histogram_of_all(parts, random):
    whole = Histogram.of(np.concatenate([part.ravel() for part in parts]))
    random.shuffle(parts)
    total = Histogram.of(parts[0])
    for part in parts[1:]:
        total = total + Histogram.of(part)
    np.testing.assert_array_equal(total.counts, whole.counts)
    assert (total.exponent, total.minimum, total.maximum) == (whole.exponent, whole.minimum, whole.maximum)


def test_larger_value_doubles_the_range_and_merges_pairs():
    small = Histogram.of(np.array([0.25, 0.5, 0.99], np.float32))
    both = small + Histogram.of(np.array([-3.0], np.float32))
    assert (small.exponent, both.exponent) == (0, 2)
    where = {int(index): int(both.counts[index]) for index in np.flatnonzero(both.counts)}
    assert where == {BINS // 16: 1, BINS // 8: 1, math.floor(0.99 * BINS / 4): 1, 3 * BINS // 4: 1}
    assert small.counts.sum() == 3, "the older histogram was changed"


def test_value_beyond_all_bins_leaves_the_rest_in_the_first():
    both = Histogram.of(np.full(5, 1e-20, np.float32)) + Histogram.of(np.array([3.4e38], np.float32))
    assert both.counts[0] == 5
    assert both.counts.sum() == 6
    assert both.used.size == math.floor(3.4e38 / both.width) + 1


@pytest.mark.parametrize("extreme", [np.finfo(np.float32).max, np.finfo(np.float32).smallest_subnormal, 0.0])
def test_extreme_values_are_counted(extreme):
    histogram = Histogram.of(np.array([0, extreme, -extreme], np.float32))
    assert histogram.counts.sum() == 3
    assert histogram.peak == extreme
    assert histogram.width > 0


@pytest.mark.parametrize("size", [(1 << 18) - 1, 1 << 18, (1 << 18) + 1, 600_000])
def test_tensor_larger_than_the_scratch_space_is_counted_whole(size):
    values = np.random.default_rng(size).normal(0, 3, size).astype(np.float32)
    histogram = Histogram.of(values.reshape(1, -1, 1))
    np.testing.assert_array_equal(histogram.counts, counted_at_once(values, histogram.exponent))


def test_values_are_not_changed():
    values = np.array([-1.0, 2.0], np.float32)
    Histogram.of(values)
    assert values.tolist() == [-1.0, 2.0]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_refused(bad):
    with pytest.raises(ValueError, match="NaN or infinite values"):
        Histogram.of(np.array([1.0, bad, 2.0], np.float32))


@pytest.mark.parametrize("values", [np.zeros(3), np.zeros(3, np.float16), np.zeros(3, np.int32)])
def test_other_types_are_refused(values):
    with pytest.raises(ValueError, match="not float32"):
        Histogram.of(values)


def test_empty_tensor_is_refused():
    with pytest.raises(ValueError, match="an empty tensor"):
        Histogram.of(np.zeros((1, 0), np.float32))
