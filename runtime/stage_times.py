"""How long each stage of a stream of frames takes, in memory that does not grow with the stream."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

WINDOW = 10_000
"""Frames that the percentiles look back on: five minutes at 30 frames per second, 80 kB per stage."""


@dataclass(frozen=True)
class StageTimes:
    """Milliseconds of one stage over all frames but the first, which warms up.

    max_ms: of all of them, however many. p50_ms, p90_ms: of the last `WINDOW`.
    """

    p50_ms: float
    p90_ms: float
    max_ms: float


class StageClock:
    """Takes the times of one frame after another, in the order of `names`."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = tuple(names)
        self._recent = np.empty((WINDOW, len(self._names)))
        self._max = np.zeros(len(self._names))
        self._frames = 0

    def add(self, times_ms: Sequence[float]) -> None:
        """Keep the times of a frame, one per stage, in milliseconds."""
        if self._frames == 1:  # the second frame takes the place of the first, here and in _recent
            self._max[:] = 0
        self._recent[max(0, self._frames - 1) % WINDOW] = times_ms
        self._max = np.maximum(self._max, times_ms)
        self._frames += 1

    def summary(self) -> dict[str, StageTimes]:
        """The times of each stage; of the first frame where it is the only one; nothing where there was none."""
        if not self._frames:
            return {}
        settled = self._recent[: min(max(1, self._frames - 1), WINDOW)]
        p50, p90 = np.median(settled, axis=0), np.percentile(settled, 90, axis=0)
        return {
            name: StageTimes(float(p50[stage]), float(p90[stage]), float(self._max[stage]))
            for stage, name in enumerate(self._names)
        }
