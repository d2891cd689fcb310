"""The one fitted number of each architecture: which share of its peak rates whole networks reach."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from .device import ARCHITECTURES
from .kernel_time import KERNEL_MS, roofline
from .published import Published, published

QUANTILES = (0.025, 0.975)
"""The expected range covers 95% of the fitted times, of all architectures together: one alone has few, and alike."""
WIDER = 1.5
"""Both ends of the range are moved out by this factor where the efficiency is another architecture's."""


@dataclass(frozen=True)
class Efficiency:
    """share: of the peak rates. low, high: published time over predicted, between which nearly all fitted ones lie.

    networks: how many times it was fitted to; taken_from: the architecture that they were measured on, where it is
    another one, because none was found for this one.
    """

    architecture: str
    share: float
    low: float
    high: float
    networks: int
    taken_from: str | None


@cache
def efficiency(architecture: str) -> Efficiency:
    """Fitted to what published.json has of that architecture, or of the one it is said to be like."""
    like = ARCHITECTURES[architecture].like
    if like is not None:
        base = efficiency(like)
        return Efficiency(architecture, base.share, base.low / WIDER, base.high * WIDER, base.networks, like)
    low, high = _spread()
    return Efficiency(architecture, fit(_fitted(architecture)), low, high, len(_fitted(architecture)), None)


def fit(rows: Sequence[Published]) -> float:
    """The share with which half of `rows` are faster than predicted and half slower: the median minds no outlier."""
    shares = []
    for row in rows:
        at_peak, started = _at_peak(row)
        # a time shorter than its kernels take by themselves says that the share is large, not how large
        shares.append(at_peak / (row.ms - started) if row.ms > started else math.inf)
    return float(np.median(shares))


def predict_ms(row: Published, share: float) -> float:
    """What is predicted for the network of `row` on its device."""
    at_peak, started = _at_peak(row)
    return at_peak / share + started


@cache
def _spread() -> tuple[float, float]:
    """QUANTILES of published time over predicted, of everything that is fitted to."""
    ratios = []
    for name in dict.fromkeys(row.device.architecture for row in published() if row.use == "fit"):
        share = fit(_fitted(name))
        ratios += [row.ms / predict_ms(row, share) for row in _fitted(name)]
    low, high = np.quantile(ratios, QUANTILES)
    return float(low), float(high)


def _fitted(architecture: str) -> list[Published]:
    return [row for row in published() if row.use == "fit" and row.device.architecture == architecture]


def _at_peak(row: Published) -> tuple[float, float]:
    """(ms at the peak rates, ms for starting the kernels)."""
    layers = row.graph().layers
    return sum(roofline(layer, row.device).ms for layer in layers), KERNEL_MS * len(layers)
