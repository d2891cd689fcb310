"""What the node tells of itself once a second: whether masks come, how fast, and what was wrong with the last image."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from time import monotonic


class Level(IntEnum):
    """diagnostic_msgs/DiagnosticStatus's levels."""

    OK = 0
    WARN = 1
    ERROR = 2


@dataclass(frozen=True)
class Report:
    """One diagnostic status. values: (key, value) pairs, as text."""

    level: Level
    message: str
    values: tuple[tuple[str, str], ...]


class Health:
    """Counts of the node and what happened since the last report. Thread-safe.

    seconds: a clock, `time.monotonic` unless a test has its own.
    """

    def __init__(self, seconds: Callable[[], float] = monotonic):
        self._seconds, self._lock = seconds, threading.Lock()
        self._processed = self._refused = self._failed = 0
        self._last_image_s: float | None = None
        self._clear(seconds())

    def segmented(self, total_ms: float, age_ms: float | None) -> None:
        """One mask went out. total_ms: of segmentation; age_ms: from the image's stamp, if it has one, to the mask."""
        with self._lock:
            self._processed += 1
            self._times.append(total_ms)
            if age_ms is not None:
                self._ages.append(age_ms)
            self._last_image_s = self._seconds()

    def refused(self, reason: str) -> None:
        """One image could not be used, for this reason."""
        with self._lock:
            self._refused += 1
            self._problem = (Level.WARN, reason)
            self._last_image_s = self._seconds()

    def failed(self, reason: str) -> None:
        """One image was in order, and the backend failed on it."""
        with self._lock:
            self._failed += 1
            self._problem = (Level.ERROR, reason)
            self._last_image_s = self._seconds()

    def report(self, received: int, dropped: int) -> Report:
        """The state since the last report; the next begins. received, dropped: counts of the whole run."""
        with self._lock:
            now = self._seconds()
            times, seconds = self._times, max(now - self._since_s, 1e-9)
            level, message = self._verdict(len(times) / seconds, now)
            counts = {
                "images received": received,
                "images segmented": self._processed,
                "images dropped": dropped,
                "images refused": self._refused,
                "images failed": self._failed,
            }
            values = [(key, str(count)) for key, count in counts.items()]
            values.append(("masks per second", f"{len(times) / seconds:.1f}"))
            if times:
                values.append(("segmentation ms (mean)", f"{sum(times) / len(times):.1f}"))
            if self._ages:
                values.append(("age ms (stamp to mask, oldest)", f"{max(self._ages):.1f}"))
            self._clear(now)
            return Report(level, message, tuple(values))

    def _verdict(self, rate: float, now: float) -> tuple[Level, str]:
        if self._problem is not None:
            return self._problem
        if rate:
            return Level.OK, f"{rate:.1f} masks per second"
        if self._last_image_s is None:
            return Level.WARN, "no image has come yet"
        return Level.WARN, f"no image for {now - self._last_image_s:.0f} s"

    def _clear(self, now: float) -> None:
        self._since_s = now
        self._times: list[float] = []
        self._ages: list[float] = []
        self._problem: tuple[Level, str] | None = None
