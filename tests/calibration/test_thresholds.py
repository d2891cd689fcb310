"""The four threshold methods against definitions written out in plain Python, and distributions with known optima."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fcnedge.calibration.histogram import BINS, Histogram
from fcnedge.calibration.thresholds import (
    METHODS,
    entropy_threshold,
    mse_threshold,
    percentile_threshold,
    threshold,
)

EXPONENT = 4  # bins up to 16


def with_density(density: Callable[[np.ndarray], np.ndarray], peak: float) -> Histogram:
    """A histogram of 1e12 values of |x| with that density, cut at `peak`: no sampling noise in the tails."""
    edges = np.arange(BINS + 1) * 2.0**EXPONENT / BINS
    cumulative = density(np.minimum(edges, peak))
    counts = np.rint(np.diff(cumulative) * 1e12).astype(np.int64)
    peak = float(np.float32(edges[np.flatnonzero(counts)[-1] + 1] * (1 - 1e-7)))
    return Histogram(counts, EXPONENT, -peak, peak)


def in_bins(counts: list[int]) -> Histogram:
    """A histogram whose first bins hold `counts`, of width 1."""
    filled = np.zeros(BINS, np.int64)
    filled[: len(counts)] = counts
    return Histogram(filled, 15, 0.0, len(counts) - 0.5)


def entropy_by_hand(counts: list[int]) -> tuple[int, list[float]]:
    """Migacz's search as the slides tell it, a bin at a time: (bins kept, divergence per candidate)."""
    counts = [counts[1], *counts[1:]]
    divergences = []
    for kept in range(128, len(counts) + 1):
        reference = [float(count) for count in counts[:kept]]
        reference[-1] += sum(counts[kept:])
        level_of = [max(level for level in range(128) if level * kept / 128 <= index) for index in range(kept)]
        candidate = [0.0] * kept
        for level in range(128):
            filled = [index for index in range(kept) if level_of[index] == level and counts[index]]
            for index in filled:
                candidate[index] = sum(counts[each] for each in filled) / len(filled)
        divergences.append(float(stats.entropy(reference, candidate)) if any(candidate) else math.inf)
    return 128 + max(i for i, value in enumerate(divergences) if value == min(divergences)), divergences


SAMPLES = {
    "normal": lambda random: random.normal(0, 1, 200_000),
    "laplace": lambda random: random.laplace(0, 1, 200_000),
    "uniform": lambda random: random.uniform(-3, 3, 200_000),
    "relu": lambda random: np.maximum(random.normal(0, 1, 200_000), 0),
    "relu6": lambda random: np.clip(random.normal(2, 4, 200_000), 0, 6),
    "outliers": lambda random: np.concatenate([random.normal(0, 1, 200_000), [60.0, -45.0]]),
}


@pytest.fixture(params=SAMPLES)
def sample(request) -> np.ndarray:
    return SAMPLES[request.param](np.random.default_rng(7)).astype(np.float32)


@pytest.mark.parametrize("method", METHODS)
def test_threshold_is_positive_and_at_most_the_peak(sample, method):
    histogram = Histogram.of(sample)
    assert 0 < threshold(histogram, method) <= histogram.peak


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("values", [[5.0], [-5.0, 0.0], [1e-30], [3.0, 3.0]])
def test_single_values_have_a_threshold_near_them(method, values):
    histogram = Histogram.of(np.array(values, np.float32))
    assert threshold(histogram, method, 100) == pytest.approx(max(map(abs, values)), rel=0.02)


@pytest.mark.parametrize("method", METHODS)
def test_tensor_that_is_always_zero_has_threshold_zero(method):
    assert threshold(Histogram.of(np.zeros(10, np.float32)), method) == 0


def test_minmax_is_the_largest_magnitude(sample):
    assert threshold(Histogram.of(sample), "minmax") == float(np.abs(sample).max())


@pytest.mark.parametrize("percentile", [1, 50, 99, 99.9, 99.99, 99.999, 100])
def test_percentile_is_numpys_within_a_bin(sample, percentile):
    histogram = Histogram.of(sample)
    # between two values the definition is a matter of taste: both neighbours are right
    low, high = (np.percentile(np.abs(sample), percentile, method=side) for side in ("lower", "higher"))
    got = percentile_threshold(histogram, percentile)
    assert low - histogram.width <= got <= high + histogram.width


def test_percentile_100_does_not_clip(sample):
    assert threshold(Histogram.of(sample), "percentile", 100) == float(np.abs(sample).max())


@settings(max_examples=15, deadline=None)
@given(st.lists(st.sampled_from([0, 0, 1, 2, 7, 50, 1000]), min_size=129, max_size=200), st.integers(1, 9))
def test_entropy_is_the_search_written_out(counts, last):
    counts = [*counts, last]
    kept, divergences = entropy_by_hand(counts)
    got = entropy_threshold(in_bins(counts))
    assert got == int(got)
    best = min(divergences)  # two candidates may differ in the last bit only
    assert divergences[int(got) - 128] == pytest.approx(best, rel=1e-9, abs=1e-12) or got == kept


def test_entropy_on_a_long_tail_is_the_search_written_out():
    counts = [int(1e6 * math.exp(-index / 25)) for index in range(300)] + [0] * 99 + [3]
    kept, _ = entropy_by_hand(counts)
    assert kept < 400, "the example clips"
    assert entropy_threshold(in_bins(counts)) == kept


def test_entropy_does_not_see_how_many_zeros_a_relu_made():
    random = np.random.default_rng(2)
    values = np.abs(random.normal(0, 1, 100_000)).astype(np.float32)
    zeros = np.zeros(10_000_000, np.float32)
    assert entropy_threshold(Histogram.of(values)) == entropy_threshold(Histogram.of(values) + Histogram.of(zeros))


def test_entropy_keeps_a_uniform_distribution_whole():
    histogram = with_density(lambda edge: edge / 10.0, 10.0)
    assert threshold(histogram, "entropy") == pytest.approx(10.0, rel=1e-3)


def test_entropy_clips_two_far_outliers():
    sample = SAMPLES["outliers"](np.random.default_rng(7)).astype(np.float32)
    assert 2 < threshold(Histogram.of(sample), "entropy") < 20


def squared_error(values: np.ndarray, limit: float) -> float:
    step = limit / 127
    quantised = np.clip(np.round(values.astype(np.float64) / step), -127, 127) * step
    return float(np.mean((quantised - values) ** 2))


def test_mse_is_the_best_of_a_dense_grid(sample):
    best = min(squared_error(sample, limit) for limit in np.abs(sample).max() * np.geomspace(1 / 64, 1, 500))
    assert squared_error(sample, mse_threshold(Histogram.of(sample))) <= 1.01 * best


@pytest.mark.parametrize(
    ("cumulative", "optimum"),
    [
        (lambda edge: 2 * stats.norm.cdf(edge) - 1, 3.92),
        (lambda edge: 1 - np.exp(-edge), 9.89),
    ],
    ids=["normal", "laplace"],
)
def test_mse_finds_the_known_optimum(cumulative, optimum):
    """8 bits in R. Banner et al., "Post training 4-bit quantization of convolutional networks", NeurIPS 2019 (ACIQ)."""
    assert threshold(with_density(cumulative, 15.9), "mse") == pytest.approx(optimum, rel=0.03)


def test_unknown_method_is_a_bug():
    with pytest.raises(KeyError):
        threshold(Histogram.of(np.ones(3, np.float32)), "median")
