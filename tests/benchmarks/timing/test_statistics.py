"""Statistics of times against SciPy, the standard library and exact distributions."""

from __future__ import annotations

import itertools
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import signal, stats

from fcnedge.benchmarks.timing.statistics import (
    FEWEST_IN_HALF,
    block_frames,
    bootstrap_medians,
    find_drift,
    find_outliers,
    ratio_of_medians,
    summarize,
)

TIMES = st.lists(st.floats(0.001, 1e5), min_size=2, max_size=200)


@given(TIMES)
def test_quantiles_are_scipys_of_type_7(values):
    found = summarize(np.array(values))
    p50, p90, p99 = stats.mstats.mquantiles(values, [0.5, 0.9, 0.99], alphap=1, betap=1)
    assert (found.frames, found.min_ms, found.max_ms) == (len(values), min(values), max(values))
    assert (found.p50_ms, found.p90_ms, found.p99_ms) == pytest.approx((p50, p90, p99))


@given(TIMES)
def test_jitter_is_the_mean_step_from_frame_to_frame(values):
    steps = [abs(later - earlier) for earlier, later in itertools.pairwise(values)]
    assert summarize(np.array(values)).jitter_ms == pytest.approx(statistics.fmean(steps), abs=1e-9)


@given(TIMES)
def test_interval_of_the_median_holds_it(values):
    found = summarize(np.array(values))
    assert found.min_ms <= found.p50_low_ms <= found.p50_high_ms <= found.max_ms


def test_one_frame_is_its_own_summary():
    found = summarize(np.array([7.5]))
    assert (found.min_ms, found.p50_ms, found.p99_ms, found.jitter_ms) == (7.5, 7.5, 7.5, 0.0)


@pytest.mark.parametrize("count", [9, 51, 201])
def test_medians_of_single_frames_have_the_exact_bootstrap_distribution(count):
    """P(median* ≤ k-th value) is that of Binomial(n, k / n) ≥ (n + 1) / 2 (Efron 1979)."""
    values = np.arange(1.0, count + 1)
    medians = bootstrap_medians(values, resamples=4000, block=1)
    for rank in range(1, count + 1):
        exact = stats.binom.sf((count + 1) // 2 - 1, count, rank / count)
        drawn = np.count_nonzero(medians <= rank)
        assert stats.binomtest(drawn, 4000, min(1.0, max(0.0, exact))).pvalue > 1e-6


def test_blocks_are_neighbours_and_the_end_joins_the_start():
    """Of a run 0 … 7 in blocks of 8 every resample is a rotation of it, and its median the run's."""
    assert set(bootstrap_medians(np.arange(8.0), block=8)) == {3.5}


def test_times_that_depend_on_one_another_get_a_wider_interval():
    noise = np.random.default_rng(1).normal(size=900)
    slow = 100 + signal.lfilter([1.0], [1.0, -0.9], noise)
    together, alone = (np.ptp(np.percentile(bootstrap_medians(slow, block=b), [2.5, 97.5])) for b in (None, 1))
    assert together > 1.5 * alone


def test_interval_covers_the_true_median_about_as_often_as_it_says():
    """Of 200 runs of AR(1) noise around a known median; a bootstrap of single frames would miss far oftener."""
    random = np.random.default_rng(2)
    runs = 50 + signal.lfilter([1.0], [1.0, -0.5], random.normal(size=(200, 600)), axis=1)[:, 100:]
    hits = 0
    for run in runs:
        low, high = np.percentile(bootstrap_medians(run, resamples=300), [2.5, 97.5])
        hits += bool(low <= 50 <= high)
    assert 0.86 <= hits / 200 <= 0.99


@given(st.integers(1, 10**6))
def test_block_is_at_least_a_frame_and_at_most_the_run(count):
    assert 1 <= block_frames(count) <= count
    assert block_frames(count) ** 2 <= count


# Drift, outliers and ratios


def test_same_numbers_for_the_same_times():
    times = np.random.default_rng(3).gamma(4, 5, 300)
    assert summarize(times) == summarize(times.copy())


@pytest.mark.parametrize("factor", [0.8, 1.25])
def test_second_half_that_is_slower_or_faster_is_drift(factor):
    times = np.random.default_rng(4).normal(20, 1, 400)
    times[200:] *= factor
    found = find_drift(times)
    assert found.drifted
    assert found.ratio == pytest.approx(np.median(times[200:]) / np.median(times[:200]))
    assert found.low < factor < found.high


def test_steady_run_does_not_drift():
    assert find_drift(np.random.default_rng(5).normal(20, 1, 400)).drifted is False


def test_sure_but_tiny_change_is_not_called_drift():
    times = np.random.default_rng(6).normal(20, 0.001, 400)
    times[200:] += 0.1
    found = find_drift(times)
    assert (found.low > 1, found.drifted) == (True, False)


def test_too_few_frames_do_not_tell_drift():
    assert find_drift(np.arange(2.0 * FEWEST_IN_HALF - 2) + 1).drifted is None


def test_outliers_are_those_beyond_tukeys_outer_fence():
    times = np.array([10.0] * 50 + [11.0] * 50 + [13.9, 14.1, 90.0])
    first, third = statistics.quantiles(times, n=4, method="inclusive")[::2]
    found = find_outliers(times)
    assert (found.frames, found.limit_ms, found.worst_ms) == (2, third + 3 * (third - first), 90.0)
    assert found.share == pytest.approx(2 / 103)


@given(st.floats(0.2, 5))
def test_ratio_of_a_run_and_its_multiple_is_the_factor(factor):
    times = np.random.default_rng(7).gamma(9, 2, 200)
    found = ratio_of_medians(factor * times, times)
    assert found.ratio == pytest.approx(factor)
    assert found.low < factor < found.high
