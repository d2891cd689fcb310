"""Rows in turns: every round runs a block of each row on the same frames, in another order each time.

One row runs at a time; the others' processes wait. What else the machine does falls on all of them, and a ratio of two
rows is taken within a round: frame by frame, of the same picture, seconds apart.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import sleep

import numpy as np

from ..timing.statistics import CONFIDENCE, Ratio, bootstrap_medians
from .bench import Block, Settled
from .child import Child, ChildError
from .entry import Entry

SLOW_MS = 1000.0
"""A row slower than this takes part in three rounds, with one frame each, and its mIoU is not measured."""
_SLOW_ROUNDS = 3
FEWEST_ROUNDS = 8
"""Four blocks of two rounds, for the bootstrap to draw from; with fewer its blocks are shorter than two rounds."""
_LEAD_FRAMES = 2
_REST_S = 0.02
"""Between two blocks: a runtime's threads spin on for a moment after their work."""


@dataclass
class Row:
    """A row under measurement. times_ms: (rounds, frames), NaN where nothing was measured; reason: why it stopped."""

    entry: Entry
    child: Child | None
    times_ms: np.ndarray
    settled: Settled | None = None
    cpu_s: float = 0.0
    wall_s: float = 0.0
    versions: dict[str, str] = field(default_factory=dict)
    detail: str = ""
    reason: str | None = None

    @property
    def slow(self) -> bool:
        """Whether one frame takes so long that only a few are timed."""
        return self.settled is not None and self.settled.frame_ms > SLOW_MS

    def run(self, index: int, lead: int, frames: Sequence[int]) -> None:
        """Time a block in round `index`; a failure ends the row."""
        if self.child is None:
            return
        try:
            block: Block = self.child.call("block", frames, lead)
        except ChildError as error:
            self.fail(str(error))
            return
        self.times_ms[index, frames] = block.times_ms
        self.cpu_s += block.cpu_s
        self.wall_s += block.wall_s

    def fail(self, reason: str) -> None:
        """No more of this row."""
        self.reason = reason
        if self.child is not None:
            self.child.close()
            self.child = None


def run_rounds(rows: Sequence[Row], progress: Callable[[int, int], None]) -> None:
    """Fill the rows' times, round by round. An interrupt leaves what was measured in them, and goes on."""
    rounds, frames = rows[0].times_ms.shape
    slow_rounds = {place * (rounds - 1) // max(1, _SLOW_ROUNDS - 1) for place in range(_SLOW_ROUNDS)}
    for index in range(rounds):
        progress(index, rounds)
        for row in random.Random(index).sample(rows, len(rows)):
            if not row.slow:
                row.run(index, _LEAD_FRAMES, range(frames))
            elif index in slow_rounds:
                row.run(index, 0, [index % frames])
            sleep(_REST_S)


def paired_ratio(times_ms: np.ndarray, reference_ms: np.ndarray) -> Ratio | None:
    """The median over frames of one row's time over the reference's, with a bootstrap interval of 95%.

    times_ms, reference_ms: (rounds, frames), NaN where there is none. Ratios of one round share what the machine did in
    it, so two rounds' worth of neighbours are drawn together. None when the two have no frame in common.
    """
    ratios = (times_ms / reference_ms).ravel()
    ratios = ratios[~np.isnan(ratios)]
    if not ratios.size:
        return None
    drawn = bootstrap_medians(ratios, block=min(2 * times_ms.shape[1], max(1, ratios.size // 4)))
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(drawn, [tail, 100 - tail])
    return Ratio(float(np.median(ratios)), float(low), float(high))
