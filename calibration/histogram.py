"""Growing histogram of a tensor's absolute values: all that the threshold methods need, in a fixed amount of memory.

The bins always span [0, 2^e): when a larger value arrives, e grows and neighbouring bins merge. Powers of two make
scaling exact, so that the histogram depends only on the values, not on their order: pictures may come in any order,
and a collection that was interrupted and continued ends bit-equal.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

BIN_BITS = 15
BINS = 1 << BIN_BITS
"""At least half of the bins lie below the largest value, since that is at least half of 2^e."""

_SMALLEST_EXPONENT = -100  # below it 2^(15-e) leaves float32; values that small count as zero
_CHUNK = 1 << 18  # elements at a time: 1 MB of scratch space, however large the tensor


@dataclass(frozen=True, eq=False)
class Histogram:
    """Counts of |x| in BINS equal bins, and the extremes of x. Immutable; `+` gives the histogram of both.

    counts: (BINS,) int64, bin i holds i * width <= |x| < (i + 1) * width; exponent: the bins span [0, 2**exponent).
    """

    counts: np.ndarray
    exponent: int
    minimum: float
    maximum: float

    @classmethod
    def of(cls, values: np.ndarray) -> Histogram:
        """Histogram of one float32 array of any shape. Raises ValueError when it is empty or holds NaN or infinity."""
        if values.dtype != np.float32:
            raise ValueError(f"values are {values.dtype}, not float32")
        if not values.size:
            raise ValueError("an empty tensor")
        minimum, maximum = float(values.min()), float(values.max())
        if not (math.isfinite(minimum) and math.isfinite(maximum)):
            raise ValueError("NaN or infinite values")
        peak = max(-minimum, maximum)
        exponent = max(math.frexp(peak)[1], _SMALLEST_EXPONENT) if peak else _SMALLEST_EXPONENT  # frexp(0) is (0, 0)
        return cls(_count(values.reshape(-1), exponent), exponent, minimum, maximum)

    def __add__(self, other: Histogram) -> Histogram:
        exponent = max(self.exponent, other.exponent)
        return Histogram(
            _merged(self.counts, exponent - self.exponent) + _merged(other.counts, exponent - other.exponent),
            exponent,
            min(self.minimum, other.minimum),
            max(self.maximum, other.maximum),
        )

    @property
    def peak(self) -> float:
        """Largest |x|."""
        return max(-self.minimum, self.maximum)

    @property
    def width(self) -> float:
        """Width of a bin."""
        return math.ldexp(1.0, self.exponent - BIN_BITS)

    @property
    def used(self) -> np.ndarray:
        """Counts up to the bin of the largest value, that one included: int64, at least one bin."""
        return self.counts[: int(np.flatnonzero(self.counts)[-1]) + 1]


def _count(flat: np.ndarray, exponent: int) -> np.ndarray:
    factor = np.float32(math.ldexp(1.0, BIN_BITS - exponent))
    counts, scratch = np.zeros(BINS, np.int64), np.empty(min(_CHUNK, flat.size), np.float32)
    for start in range(0, flat.size, _CHUNK):
        chunk = flat[start : start + _CHUNK]
        scaled = np.abs(chunk, out=scratch[: chunk.size])
        scaled *= factor
        counts += np.bincount(scaled.astype(np.intp), minlength=BINS)
    return counts


def _merged(counts: np.ndarray, doublings: int) -> np.ndarray:
    """The same counts over a range that is 2**doublings times as wide."""
    if not doublings:
        return counts
    merged, group = np.zeros_like(counts), 1 << min(doublings, BIN_BITS)
    merged[: BINS // group] = counts.reshape(-1, group).sum(1)
    return merged
