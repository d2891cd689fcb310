"""The newest result of each source, put there by the pipeline and looked at by the page."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from ..overlay import class_shares
from ..streams.result import StreamResult
from ..streams.status import SourceState, SourceStatus

_RATE_WINDOW_S = 3.0
_RATE_FRAMES = 100


@dataclass(frozen=True, eq=False)
class Published:
    """One result on the board. number: counts the results of its source, from 1. encoded: its pictures, by kind."""

    number: int
    result: StreamResult
    overlay: np.ndarray | None
    encoded: dict[str, bytes] = field(default_factory=dict)

    @cached_property
    def shares(self) -> dict[int, float]:
        """Class id → share of the mask's pixels, the largest first."""
        return class_shares(self.result.segmentation.mask)


class Board:
    """Thread-safe. statuses: gives the state of every source, in the order of the page; None where nobody knows it."""

    def __init__(self) -> None:
        self.statuses: Callable[[], Sequence[SourceStatus]] | None = None
        self._lock = threading.Lock()
        self._newest: dict[str, Published] = {}
        self._times: dict[str, deque[float]] = {}
        self._wake: Callable[[], None] | None = None

    def put(self, result: StreamResult, overlay: np.ndarray | None = None) -> None:
        """Replace what was there of this source; takes microseconds, whoever looks."""
        with self._lock:
            before = self._newest.get(result.source)
            self._newest[result.source] = Published(before.number + 1 if before else 1, result, overlay)
            self._times.setdefault(result.source, deque(maxlen=_RATE_FRAMES)).append(time.monotonic())
            wake, self._wake = self._wake, None
        if wake is not None:
            wake()

    def call_once(self, wake: Callable[[], None]) -> None:
        """Have `wake` called by the next `put`, and by that one alone: nobody is woken who is still at work."""
        with self._lock:
            self._wake = wake

    def sources(self) -> list[SourceStatus]:
        """Every source that is known: those of `statuses` first, then those that only published."""
        told = list(self.statuses()) if self.statuses is not None else []
        known = {status.uri for status in told}
        with self._lock:
            others = [(uri, each) for uri, each in self._newest.items() if uri not in known]
        for uri, each in others:
            seen = each.result.dropped
            told.append(SourceStatus(uri, SourceState.LIVE, each.number + seen, each.number, seen))
        return told

    def newest(self, uri: str) -> Published | None:
        """The newest result of a source; None before the first."""
        with self._lock:
            return self._newest.get(uri)

    def masks_per_second(self, uri: str) -> float | None:
        """Results of the last three seconds, per second; None where there were fewer than two."""
        since = time.monotonic() - _RATE_WINDOW_S
        with self._lock:
            times = [each for each in self._times.get(uri, ()) if each >= since]
        return (len(times) - 1) / (times[-1] - times[0]) if len(times) > 1 and times[-1] > times[0] else None
