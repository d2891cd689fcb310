"""The newest result of each source, put there by the pipeline and looked at by the page."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
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


_Key = tuple[int, str]
"""Place and URI of a source: two may have one URI, and streams of their own all have place 0."""


@dataclass(frozen=True)
class BoardSource:
    """A source on the board. key: of its results, None before the first."""

    status: SourceStatus
    key: _Key | None


class Board:
    """Thread-safe. statuses: gives the state of every source, in the order of the page; None where nobody knows it."""

    def __init__(self) -> None:
        self.statuses: Callable[[], Sequence[SourceStatus]] | None = None
        self._lock = threading.Lock()
        self._newest: dict[_Key, Published] = {}
        self._times: dict[_Key, deque[float]] = {}
        self._wake: Callable[[], None] | None = None

    def put(self, result: StreamResult, overlay: np.ndarray | None = None) -> None:
        """Replace what was there of this source; takes microseconds, whoever looks."""
        key = (result.place, result.source)
        with self._lock:
            before = self._newest.get(key)
            self._newest[key] = Published(before.number + 1 if before else 1, result, overlay)
            self._times.setdefault(key, deque(maxlen=_RATE_FRAMES)).append(time.monotonic())
            wake, self._wake = self._wake, None
        if wake is not None:
            wake()

    def call_once(self, wake: Callable[[], None]) -> None:
        """Have `wake` called by the next `put`, and by that one alone: nobody is woken who is still at work."""
        with self._lock:
            self._wake = wake

    def sources(self) -> list[BoardSource]:
        """Every source that is known: those of `statuses` first, then those that only published.

        A result belongs to the status at its place, if the URI is the same; else, as from streams that know of no
        other, to the first status of its URI.
        """
        told = list(self.statuses()) if self.statuses is not None else []
        with self._lock:
            keys = list(self._newest)
            taken = {(place, status.uri) for place, status in enumerate(told)} & set(keys)
            found = [BoardSource(status, _key_of(place, status.uri, keys, taken)) for place, status in enumerate(told)]
            shown = {source.key for source in found}
            others = [(key, each) for key, each in self._newest.items() if key not in shown]
        for key, each in others:
            seen = each.result.dropped
            status = SourceStatus(key[1], SourceState.LIVE, each.number + seen, each.number, seen)
            found.append(BoardSource(status, key))
        return found

    def newest(self, source: BoardSource) -> Published | None:
        """The newest result of a source; None before the first."""
        with self._lock:
            return self._newest.get(source.key) if source.key is not None else None

    def masks_per_second(self, source: BoardSource) -> float | None:
        """Results of the last three seconds, per second; None where there were fewer than two."""
        since = time.monotonic() - _RATE_WINDOW_S
        with self._lock:
            of_source = self._times.get(source.key, ()) if source.key is not None else ()
            times = [each for each in of_source if each >= since]
        return (len(times) - 1) / (times[-1] - times[0]) if len(times) > 1 and times[-1] > times[0] else None


def _key_of(place: int, uri: str, keys: Sequence[_Key], taken: Collection[_Key]) -> _Key | None:
    if (place, uri) in taken:
        return place, uri
    return next((key for key in keys if key[1] == uri and key not in taken), None)
