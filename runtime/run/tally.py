"""Counts and times of a run while it goes on."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np

from ..overlay import class_shares
from ..sources import Source
from ..stage_times import StageClock, StageTimes
from ..streams import SourceState, SourceStatus, StreamResult
from .result import LiveStats, SourceResult

STAGES = ("preprocess", "infer", "head", "overlay", "total")


class Tally:
    """Results that were written, by source. Thread-safe. sources: how many; limit: of results, None for no limit."""

    def __init__(self, sources: int, limit: int | None) -> None:
        self._lock = threading.Lock()
        self._limit, self._claimed = limit, 0
        self._frames = [0] * sources
        self._ages = [StageClock(("age",)) for _ in range(sources)]
        self._stages = StageClock(STAGES)
        self._pixels = np.zeros(256)

    def claim(self) -> bool:
        """Whether one more result may be written."""
        with self._lock:
            if self._limit is not None and self._claimed >= self._limit:
                return False
            self._claimed += 1
            return True

    def add(self, result: StreamResult, drawn_ms: float) -> None:
        """Count a result that was written."""
        found = result.segmentation
        shares = class_shares(found.mask)
        with self._lock:
            self._frames[result.place] += 1
            self._ages[result.place].add((result.age_ms,))
            self._stages.add(
                (found.preprocess_ms, found.infer_ms, found.head_ms, drawn_ms, found.total_ms + drawn_ms),
            )
            for class_id, share in shares.items():
                self._pixels[class_id] += share * found.mask.size

    @property
    def frames(self) -> int:
        """Results written, of all sources."""
        with self._lock:
            return sum(self._frames)

    @property
    def full(self) -> bool:
        """Whether as many were written as may be."""
        return self._limit is not None and self.frames >= self._limit

    def stages(self) -> dict[str, StageTimes]:
        """The times of each stage, in milliseconds."""
        with self._lock:
            return self._stages.summary()

    def classes(self, names: Sequence[str]) -> dict[str, float]:
        """Share of all pixels by name, of the classes that were seen. Classes of one name are one."""
        with self._lock:
            shares = self._pixels / max(1, self._pixels.sum())
        seen: dict[str, float] = {}
        for class_id, name in enumerate(names):
            if shares[class_id]:
                seen[name] = seen.get(name, 0.0) + float(shares[class_id])
        return seen

    def source(self, place: int, source: Source | None, status: SourceStatus) -> SourceResult:
        """What came of the source at `place`. source: None where it was not opened; status: its last."""
        frames = self._frames[place]
        failure = status.reason if status.state is SourceState.ENDED else None
        live = None
        if source is not None and source.live:
            age = self._ages[place].summary().get("age")
            live = LiveStats(status.captured, status.captured - frames, status.connections, age)
        return SourceResult(
            status.uri,
            frames,
            0 if source is None else source.skipped,
            failure if source is None else failure or source.warning,
            live,
        )
