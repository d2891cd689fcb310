"""One layer's time, and the table of all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

PROFILED_RUNS, PROFILED_S, FEWEST_RUNS = 20, 5.0, 3


@dataclass(frozen=True)
class LayerTime:
    """One layer. type: operator. implementation: what ran it, as the backend names it. ms: median. share: of 1."""

    name: str
    type: str
    implementation: str
    ms: float
    share: float


@dataclass(frozen=True)
class LayerProfile:
    """Where the layers' times come from. runs: inferences; sum_ms: of all layers; reason: why there is none."""

    tool: str | None
    runs: int
    sum_ms: float | None
    reason: str | None


@dataclass(frozen=True)
class LayerKey:
    """What tells one layer from another."""

    name: str
    type: str
    implementation: str


def layer_table(runs: Sequence[Mapping[LayerKey, float]]) -> tuple[LayerTime, ...]:
    """Milliseconds by layer of each run → medians, in the order in which layers first ran; absent counts as 0."""
    keys = list(dict.fromkeys(key for run in runs for key in run))
    medians = [float(np.median([run.get(key, 0.0) for run in runs])) for key in keys]
    whole = sum(medians)
    return tuple(
        LayerTime(key.name, key.type, key.implementation, ms, ms / whole if whole else 0.0)
        for key, ms in zip(keys, medians, strict=True)
    )
