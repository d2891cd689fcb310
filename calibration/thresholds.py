"""Where to clip a tensor: four ways from a histogram of |x| to the threshold T of symmetric int8.

int8 stores q = round(x / s) within ±127 with the step s = T / 127. A small T gives fine steps and clips the outliers,
a large one keeps them and is coarse.

minmax      T = largest |x|; nothing is clipped.
percentile  T = the value that the given share of all |x| does not exceed.
entropy     T whose 128 levels lose least information: the smallest Kullback-Leibler divergence between the clipped
            distribution over at most 2048 bins and the same in 128 levels. S. Migacz, "8-bit inference with TensorRT",
            GTC 2017 (S7310), the method of TensorRT's EntropyCalibrator2. The first bin takes its neighbour's count, as
            in the histogram calibrator of NVIDIA's pytorch-quantization: after a ReLU it holds mostly exact zeros,
            which every T represents exactly, and which would drown the rest.
mse         T with the smallest expected squared error of rounding and clipping together.
"""

from __future__ import annotations

import numpy as np

from .histogram import Histogram

METHODS = ("minmax", "percentile", "entropy", "mse")
DEFAULT_PERCENTILE = 99.999
INT8_MAX = 127
ENTROPY_BINS = 2048
ENTROPY_LEVELS = 128

_MSE_SMALLEST_SHARE = 1 / 64  # of the peak: a step is then still several bins wide
_MSE_CANDIDATES = 64


def threshold(histogram: Histogram, method: str, percentile: float = DEFAULT_PERCENTILE) -> float:
    """Clipping limit of |x| by `method`, one of METHODS: positive and at most the peak.

    0 for a tensor that is always zero. percentile: in (0, 100], read by the method of that name only.
    """
    if histogram.peak == 0:
        return 0.0
    chosen = {
        "minmax": lambda: histogram.peak,
        "percentile": lambda: percentile_threshold(histogram, percentile),
        "entropy": lambda: entropy_threshold(histogram),
        "mse": lambda: mse_threshold(histogram),
    }[method]()
    return min(chosen, histogram.peak)


def percentile_threshold(histogram: Histogram, percentile: float) -> float:
    """Value that `percentile` % of all |x| do not exceed, linear within its bin."""
    cumulative = np.cumsum(histogram.counts)
    wanted = float(cumulative[-1]) * percentile / 100
    index = int(np.searchsorted(cumulative, wanted))
    inside = (wanted - float(cumulative[index] - histogram.counts[index])) / float(histogram.counts[index])
    return (index + inside) * histogram.width


def entropy_threshold(histogram: Histogram) -> float:
    """Upper edge of the bin that Migacz's search ends at; the widest of equally good ones."""
    counts, width = _coarse(histogram)
    if len(counts) > 1:
        counts[0] = counts[1]
    if not counts.any():
        return histogram.peak
    candidates = range(min(ENTROPY_LEVELS, len(counts)), len(counts) + 1)
    divergences = np.array([_divergence(counts, bins) for bins in candidates])
    best = len(divergences) - 1 - int(np.argmin(divergences[::-1]))
    return candidates[best] * width


def mse_threshold(histogram: Histogram) -> float:
    """Best of evenly spaced ratios between 1/64 of the peak and the peak, refined around the best one."""
    used = histogram.used
    filled = np.flatnonzero(used)
    centres = (filled + 0.5) * histogram.width
    counts = used[filled].astype(np.float64)
    candidates = histogram.peak * np.geomspace(_MSE_SMALLEST_SHARE, 1, _MSE_CANDIDATES)
    best = _least(centres, counts, candidates)
    low, high = candidates[max(best - 1, 0)], candidates[min(best + 1, len(candidates) - 1)]
    refined = np.linspace(low, high, _MSE_CANDIDATES)
    return float(refined[_least(centres, counts, refined)])


def _coarse(histogram: Histogram) -> tuple[np.ndarray, float]:
    """1821 to 2048 equal bins over [0, peak], (n,) float64, and their width: whole groups of the histogram's bins."""
    used = histogram.used
    group = -(-len(used) // ENTROPY_BINS)
    padded = np.zeros(-(-len(used) // group) * group)
    padded[: len(used)] = used
    return padded.reshape(-1, group).sum(1), group * histogram.width


def _divergence(counts: np.ndarray, bins: int) -> float:
    """KL(P || Q) for clipping after `bins` bins: P has what lies beyond in its last bin, Q is 128 levels without it.

    Each level's count is spread evenly over those of its bins that hold something.
    """
    kept, beyond = counts[:bins], counts[bins:].sum()
    levels = min(ENTROPY_LEVELS, bins)
    starts = -(-np.arange(levels) * bins // levels)  # first bin whose lower edge lies in the level
    filled = kept > 0
    sums, filled_bins = np.add.reduceat(kept, starts), np.add.reduceat(filled.astype(np.float64), starts)
    spread = np.divide(sums, filled_bins, out=np.zeros(levels), where=filled_bins > 0)
    quantised = np.where(filled, np.repeat(spread, np.diff(starts, append=bins)), 0.0)
    reference = kept.copy()
    reference[-1] += beyond
    occurs = reference > 0
    if not filled.any() or not filled[occurs].all():
        return float("inf")  # Q calls impossible what P holds: all of it lies beyond an empty last bin
    p, q = reference[occurs] / reference.sum(), quantised[occurs] / quantised.sum()
    return float(np.sum(p * np.log(p / q)))


def _least(centres: np.ndarray, counts: np.ndarray, candidates: np.ndarray) -> int:
    return int(np.argmin([_squared_error(centres, counts, candidate) for candidate in candidates]))


def _squared_error(centres: np.ndarray, counts: np.ndarray, limit: float) -> float:
    step = limit / INT8_MAX
    error = np.minimum(np.rint(centres / step), INT8_MAX) * step - centres
    return float(np.sum(counts * error * error))  # not `@`: BLAS threads cost more than they bring here
