"""How long to wait between attempts to reach a camera that was lost."""

from __future__ import annotations

import random

FIRST_S, LONGEST_S = 0.25, 5.0


class Backoff:
    """0 s, then 0.25 s doubling to 5 s, each shortened by a random part of up to half.

    The random part keeps cameras behind one switch that came back from being asked all at once (full jitter's smaller
    sister; AWS Architecture Blog, "Exponential Backoff And Jitter").
    """

    def __init__(self, jitter: random.Random | None = None) -> None:
        self._jitter = jitter or random.Random()
        self._failures = 0

    def next_s(self) -> float:
        """Seconds to wait before the next attempt."""
        failures, self._failures = self._failures, self._failures + 1
        if failures == 0:
            return 0.0
        return min(LONGEST_S, FIRST_S * 2.0 ** min(failures - 1, 10)) * self._jitter.uniform(0.5, 1.0)

    def reset(self) -> None:
        """The camera is well: the next loss is the first again."""
        self._failures = 0
