"""Where a run's warm-up ends, found in its own times.

Caches fill, clocks rise, libraries choose their kernels: the first frames are slower, by how many differs from machine
to machine, so that no fixed number of them is right.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

HEAD_FRAMES, FOLLOWING_FRAMES = 10, 50
TOLERANCE = 0.05
_FEWEST = 12
_FENCE_IQR = 1.5
RULE = (
    f"warm-up ends with the first {HEAD_FRAMES} frames whose median is within {TOLERANCE:.0%} (or half the "
    f"interquartile range, where times vary more) of that of both halves of the next {FOLLOWING_FRAMES}, and whose "
    f"first is none of their outliers (above Q3 + {_FENCE_IQR} IQR); frame_to_mask; runs of fewer than "
    f"{HEAD_FRAMES + FOLLOWING_FRAMES} frames look at fewer"
)


@dataclass(frozen=True)
class WarmUp:
    """How many frames were left out, and whether the run settled at all. reason: why not, where it did not."""

    frames: int
    settled: bool
    reason: str | None
    rule: str = RULE


def find_warm_up(times_ms: np.ndarray) -> WarmUp:
    """times_ms: (n,) of all frames in their order. A run that does not settle keeps all its frames, and says so."""
    count = len(times_ms)
    if count < _FEWEST:
        return WarmUp(0, settled=False, reason=f"{count} frames are too few to tell warm-up from run")
    head, following = _windows(count)
    for first in range(count - head - following + 1):
        middle = first + head
        if _is_steady(times_ms[first:middle], times_ms[middle : middle + following]):
            return WarmUp(first, settled=True, reason=None)
    return WarmUp(0, settled=False, reason=f"no {head} of {count} frames were as fast as the {following} after them")


def _is_steady(head_ms: np.ndarray, after_ms: np.ndarray) -> bool:
    """The rule. Both halves: a start that is slow for thirty frames would have most of the fifty on its side.

    Half the interquartile range cannot hide such a step: where times jump once it is half the step at most.
    """
    low, median, high = np.percentile(after_ms, [25, 50, 75])
    if head_ms[0] > max(high + _FENCE_IQR * (high - low), (1 + TOLERANCE) * median):
        return False
    tolerance = max(TOLERANCE * median, (high - low) / 2)
    halves = np.array_split(after_ms, 2)
    return all(abs(np.median(head_ms) - np.median(half)) <= tolerance for half in halves)


def _windows(count: int) -> tuple[int, int]:
    """(head, following): a shorter run looks at half of itself at a time, or no frame of it could ever be left out."""
    if count >= HEAD_FRAMES + FOLLOWING_FRAMES:
        return HEAD_FRAMES, FOLLOWING_FRAMES
    head = max(2, count // 12)
    return head, 5 * head
