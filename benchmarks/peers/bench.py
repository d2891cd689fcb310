"""What a child process does with its row: warm up, time blocks of frames, score pictures."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter, perf_counter_ns

import numpy as np

from fcnedge.calibration.miou import ConfusionMatrix
from fcnedge.calibration.voc import VocSample
from fcnedge.runtime.errors import UserError
from fcnedge.runtime.opencv import load_cv2

from ..timing.stream_mode import SETTLING_FRAMES
from ..timing.warm_up import FOLLOWING_FRAMES, HEAD_FRAMES, WarmUp, find_warm_up
from .entry import Entry, Opened

LONGEST_SETTLING_S = 10.0
"""A row that has not settled after so long is timed as it is, and says so."""
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "TF_NUM_INTRAOP_THREADS")


@dataclass(frozen=True)
class Settled:
    """How a row started. frame_ms: median of its frames once warm-up was over."""

    warm_up: WarmUp
    frame_ms: float


@dataclass(frozen=True)
class Block:
    """Some frames in a row. times_ms: of each; cpu_s, wall_s: what the process took for them, all its threads."""

    times_ms: tuple[float, ...]
    cpu_s: float
    wall_s: float


class Bench:
    """One opened row and the frames to time it with, (H, W, 3) uint8 BGR each."""

    def __init__(self, entry: Entry, threads: int, frames: Sequence[np.ndarray], progress: Callable[[int], None]):
        for name in _THREAD_VARIABLES:
            os.environ[name] = str(threads)
        os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
        load_cv2().setNumThreads(threads)
        assert entry.open is not None, "rows with nothing to open get no process"
        self._opened: Opened = entry.open(threads)
        self._frames, self._progress = frames, progress
        began = perf_counter()
        _check_mask(self._opened.segment(frames[0]), frames[0])
        self._first_s = perf_counter() - began

    def facts(self) -> tuple[dict[str, str], str]:
        """(versions, detail) of what was opened."""
        return self._opened.versions, self._opened.detail

    def cpu_s(self) -> float:
        """CPU seconds of this process so far."""
        times = os.times()
        return times.user + times.system

    def settle(self) -> Settled:
        """Run frames until the warm-up's end is found in their times, or for ten seconds, with the first frame."""
        times: list[float] = []
        began = perf_counter() - self._first_s
        while not _is_settled(times, perf_counter() - began):
            times.append(self._time(len(times)))
        found = find_warm_up(np.array(times))
        return Settled(found, float(np.median(times[found.frames :])))

    def block(self, frames: Sequence[int], lead: int) -> Block:
        """Time those frames one after another, after `lead` untimed ones that bring caches and threads back."""
        for place in range(lead):
            self._time(frames[-1 - place % len(frames)])
        cpu, wall = self.cpu_s(), perf_counter()
        times = tuple(self._time(index) for index in frames)
        return Block(times, self.cpu_s() - cpu, perf_counter() - wall)

    def score(self, samples: Sequence[VocSample], classes: int) -> np.ndarray:
        """Segment pictures at their own sizes: the counts of ConfusionMatrix, (classes, classes) int64."""
        matrix = ConfusionMatrix(classes)
        for done, sample in enumerate(samples):
            self._progress(done)
            try:
                matrix.add(sample.read_mask(), self._opened.segment(sample.read_image()))
            except ValueError as error:
                raise UserError(f"{sample.mask_path} does not fit its picture or the model: {error}.") from error
        return matrix.counts

    def _time(self, index: int) -> float:
        frame = self._frames[index % len(self._frames)]
        before = perf_counter_ns()
        self._opened.segment(frame)
        return (perf_counter_ns() - before) / 1e6


def _is_settled(times_ms: Sequence[float], seconds: float) -> bool:
    count = len(times_ms)
    if not count:
        return False
    if seconds >= LONGEST_SETTLING_S or count >= SETTLING_FRAMES:
        return True
    enough = count >= HEAD_FRAMES + FOLLOWING_FRAMES and count % HEAD_FRAMES == 0
    return enough and find_warm_up(np.array(times_ms)).settled


def _check_mask(mask: np.ndarray, frame: np.ndarray) -> None:
    if mask.dtype != np.uint8 or mask.shape != frame.shape[:2]:
        raise UserError(f"it gives {mask.dtype} {mask.shape} for a frame of {frame.shape}; expected uint8 (H, W).")
