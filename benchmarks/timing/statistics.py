"""What a list of times says, and how sure it is: quantiles, jitter, drift, outliers, bootstrap intervals.

One frame's time depends on the one before it (clocks, caches, what else the machine does). An interval that takes them
for independent is too narrow, so whole blocks of neighbours are drawn: the circular block bootstrap of Politis and
Romano (1992).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95
RESAMPLES = 1000
FAR_OUT_IQR = 3.0
"""Interquartile ranges above the upper quartile from which Tukey calls a value far out (Exploratory Data Analysis)."""
DRIFT_SHARE = 0.02
"""A second half that is slower or faster by less than this is not called drift, however sure it is."""
FEWEST_IN_HALF = 25
_SEED = 20


@dataclass(frozen=True)
class Times:
    """Milliseconds of one stage. p50_low_ms, p50_high_ms: the median's bootstrap interval of 95%.

    jitter_ms: mean absolute difference between one frame and the next.
    """

    frames: int
    min_ms: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float
    jitter_ms: float
    p50_low_ms: float
    p50_high_ms: float


@dataclass(frozen=True)
class Drift:
    """The second half of the run over its first half, by their medians, with a bootstrap interval of 95%.

    drifted: the interval leaves 1 out and the ratio is at least two per cent from it; None where there are too few
    frames to tell.
    """

    ratio: float
    low: float
    high: float
    drifted: bool | None


@dataclass(frozen=True)
class Outliers:
    """Frames above Q3 + 3 IQR. share: of 1; limit_ms: that limit; worst_ms: the slowest frame."""

    frames: int
    share: float
    limit_ms: float
    worst_ms: float


@dataclass(frozen=True)
class Ratio:
    """One median over another with its bootstrap interval."""

    ratio: float
    low: float
    high: float


def summarize(times_ms: np.ndarray) -> Times:
    """times_ms: (n,) in the order of the frames, n ≥ 1. Quantiles are interpolated linearly (R's type 7)."""
    low, p50, p90, p99, high = np.percentile(times_ms, [0, 50, 90, 99, 100])
    medians = bootstrap_medians(times_ms)
    tail = 100 * (1 - CONFIDENCE) / 2
    p50_low, p50_high = np.percentile(medians, [tail, 100 - tail])
    jitter = np.abs(np.diff(times_ms)).mean() if len(times_ms) > 1 else 0.0
    return Times(len(times_ms), *map(float, (low, p50, p90, p99, high, jitter, p50_low, p50_high)))


def find_drift(times_ms: np.ndarray) -> Drift:
    """times_ms: (n,), n ≥ 2, in the order of the frames."""
    half = len(times_ms) // 2
    found = ratio_of_medians(times_ms[half:], times_ms[:half])
    sure = found.low > 1 or found.high < 1
    enough = half >= FEWEST_IN_HALF
    return Drift(found.ratio, found.low, found.high, (sure and abs(found.ratio - 1) >= DRIFT_SHARE) if enough else None)


def find_outliers(times_ms: np.ndarray) -> Outliers:
    """times_ms: (n,), n ≥ 1."""
    first, third = np.percentile(times_ms, [25, 75])
    limit = third + FAR_OUT_IQR * (third - first)
    count = int(np.count_nonzero(times_ms > limit))
    return Outliers(count, count / len(times_ms), float(limit), float(times_ms.max()))


def ratio_of_medians(numerator_ms: np.ndarray, denominator_ms: np.ndarray) -> Ratio:
    """The median of one run over that of another; the two are drawn independently of each other."""
    drawn = bootstrap_medians(numerator_ms, seed=_SEED) / bootstrap_medians(denominator_ms, seed=_SEED + 1)
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(drawn, [tail, 100 - tail])
    return Ratio(float(np.median(numerator_ms) / np.median(denominator_ms)), float(low), float(high))


def bootstrap_medians(
    times_ms: np.ndarray, *, resamples: int = RESAMPLES, block: int | None = None, seed: int = _SEED
) -> np.ndarray:
    """Medians of `resamples` runs drawn from this one, (resamples,). The same numbers for the same times.

    block: neighbours that are drawn together, None for `block_frames`; a block may run over the end into the start.
    """
    count = len(times_ms)
    length = block or block_frames(count)
    starts = np.random.default_rng(seed).integers(count, size=(resamples, -(-count // length)))
    medians = np.empty(resamples)
    for index, row in enumerate(starts):  # one at a time: a long run's resamples would fill a small board's memory
        places = (row[:, None] + np.arange(length)).ravel()[:count] % count
        medians[index] = np.median(times_ms[places])
    return medians


def block_frames(frames: int) -> int:
    """Neighbours that the bootstrap draws together: the square root, long against what one frame leaves to the next."""
    return max(1, int(np.sqrt(frames)))
