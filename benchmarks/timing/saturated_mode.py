"""Saturated mode: how many masks per second, when several threads with a model each keep the machine busy."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from fcnedge.runtime import BackendError, Segmenter

from .warm_up import find_warm_up

HELPS = 1.03
"""More workers are tried as long as they bring three per cent more."""
POOL_FRAMES = 16
_POLL_S = 0.2

OpenSegmenter = Callable[[int | None], Segmenter]
"""A new segmenter with so many threads for one inference; None: the backend's own choice, which a GPU's ignores."""


@dataclass(frozen=True)
class SaturatedRow:
    """workers at once, each with a model of its own and so many threads. p50_ms: of one frame; memory grows with it."""

    workers: int
    threads_each: int | None
    frames: int
    seconds: float
    fps: float
    p50_ms: float
    settled: bool


@dataclass(frozen=True)
class Saturated:
    """Frame in memory → mask: nothing is decoded or painted. reason: why it was not tried further, or not at all."""

    best_fps: float | None
    best_workers: int | None
    rows: tuple[SaturatedRow, ...]
    reason: str | None


def run_saturated(
    images: Sequence[np.ndarray], open_segmenter: OpenSegmenter, plan: Sequence[tuple[int, int | None]], seconds: float
) -> Saturated:
    """Run each (workers, threads for each) of `plan` for so many seconds, until more of them bring nothing.

    images: frames (H, W, 3) uint8 BGR that all share.
    """
    rows: list[SaturatedRow] = []
    reason = None
    for workers, threads in plan:
        try:
            row = _run(images, open_segmenter, workers, threads, seconds)
        except BackendError as error:
            reason = f"{workers} models at once: {error}"
            break
        rows.append(row)
        if len(rows) > 1 and row.fps < HELPS * rows[-2].fps:
            reason = f"{row.workers} workers bring less than {HELPS - 1:.0%} more than {rows[-2].workers}"
            break
    best = max(rows, key=lambda row: row.fps, default=None)
    if best is None:
        return Saturated(None, None, (), reason)
    return Saturated(best.fps, best.workers, tuple(rows), reason)


def plan_workers(cores: int, *, on_gpu: bool) -> list[tuple[int, int | None]]:
    """(workers, threads for each): 1, 2, 4 … that share `cores` between them; on a GPU up to four."""
    if on_gpu:
        return [(workers, None) for workers in (1, 2, 4)]
    doubled = itertools.takewhile(lambda workers: workers < cores, (2**power for power in itertools.count()))
    return [(workers, max(1, cores // workers)) for workers in (*doubled, cores)]


def _run(
    images: Sequence[np.ndarray], open_segmenter: OpenSegmenter, workers: int, threads: int | None, seconds: float
) -> SaturatedRow:
    with contextlib.ExitStack() as opened:
        crew = [_Worker(opened.enter_context(open_segmenter(threads)), images) for _ in range(workers)]
        stop = threading.Event()
        gang = [threading.Thread(target=worker.work, args=(stop,), daemon=True) for worker in crew]
        try:
            for thread in gang:
                thread.start()
            ends = perf_counter() + seconds
            while perf_counter() < ends and not any(worker.error for worker in crew):
                stop.wait(min(_POLL_S, max(0.0, ends - perf_counter())))
        finally:
            stop.set()
            for thread in gang:
                thread.join()
    for worker in crew:
        if worker.error is not None:
            raise worker.error
    return _row(crew, workers, threads)


class _Worker:
    """One thread: frame after frame through a model of its own. done_s, times_ms: one per frame."""

    def __init__(self, segmenter: Segmenter, images: Sequence[np.ndarray]):
        self._segmenter, self._images = segmenter, images
        self.done_s: list[float] = []
        self.times_ms: list[float] = []
        self.error: Exception | None = None

    def work(self, stop: threading.Event) -> None:
        before = perf_counter()
        try:
            for image in itertools.cycle(self._images):
                self._segmenter.segment(image)
                now = perf_counter()
                self.times_ms.append(1000 * (now - before))
                self.done_s.append(now)
                before = now
                if stop.is_set():
                    return
        except Exception as error:  # raised again in the thread that waits
            self.error = error


def _row(crew: Sequence[_Worker], workers: int, threads: int | None) -> SaturatedRow:
    """What the crew did together from when the last of them had settled to when the first of them stopped."""
    warm_ups = [find_warm_up(np.array(worker.times_ms)) for worker in crew]
    begin = max(worker.done_s[warm_up.frames] for worker, warm_up in zip(crew, warm_ups, strict=True))
    end = min(worker.done_s[-1] for worker in crew)
    if end <= begin:  # too short a run: all there is
        begin, end = min(worker.done_s[0] for worker in crew), max(worker.done_s[-1] for worker in crew)
    times = [
        time
        for worker in crew
        for time, done in zip(worker.times_ms, worker.done_s, strict=True)
        if begin < done <= end
    ]
    times = times or [time for worker in crew for time in worker.times_ms]
    seconds = end - begin or sum(times) / 1000 / workers
    return SaturatedRow(
        workers=workers,
        threads_each=threads,
        frames=len(times),
        seconds=seconds,
        fps=len(times) / seconds,
        p50_ms=float(np.median(times)),
        settled=all(warm_up.settled for warm_up in warm_ups),
    )
