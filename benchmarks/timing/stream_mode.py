"""Stream mode: one frame after another, end to end, until the run has settled and enough has been measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from fcnedge.runtime import Frame, Segmenter, Source, SourceError, UserError

from ..sensors.conditions import Reading, Sensors
from .stages import STAGES, time_frame
from .warm_up import FOLLOWING_FRAMES, HEAD_FRAMES, WarmUp, find_warm_up

INTERRUPTED = "interrupted"
READ_SENSORS_S = 0.25
DEFAULT_S, DEFAULT_FRAMES, LONGEST_DEFAULT_S = 10.0, 100, 60.0
SETTLING_FRAMES, SETTLING_S = 300, 5.0
"""A run that has not settled after both is measured as it is …"""
LONGEST_SETTLING_S = 30.0
"""… and after this in any case."""
_WATCHED = STAGES.index("frame_to_mask")


@dataclass(frozen=True)
class Budget:
    """How much to measure once the run has settled: frames, seconds, or whichever is reached first.

    Both None: ten seconds and a hundred frames, for a p99 that is one, but no more than a minute.
    """

    frames: int | None = None
    seconds: float | None = None

    def is_spent(self, frames: int, seconds: float) -> bool:
        """Whether so many measured frames in so many seconds are enough."""
        if self.frames is None and self.seconds is None:
            return (seconds >= DEFAULT_S and frames >= DEFAULT_FRAMES) or seconds >= LONGEST_DEFAULT_S
        return (self.frames is not None and frames >= self.frames) or (
            self.seconds is not None and seconds >= self.seconds
        )


@dataclass(frozen=True)
class StreamRun:
    """All frames in their order, warm-up first. times_ms: (n, len(STAGES)), NaN for a stage that there is not.

    moments_s: (n,) when each frame was done, from the start of the run. readings: of the sensors, all along. passes:
    how often the source was begun. sizes: (height, width) of its frames. image: the last of them. end: None when the
    budget was spent; else why not, "interrupted" or one phrase on what failed. wanted: frames that the budget allows,
    None for all.
    """

    times_ms: np.ndarray
    moments_s: np.ndarray
    warm_up: WarmUp
    readings: tuple[Reading, ...]
    passes: int
    sizes: tuple[tuple[int, int], ...]
    image: np.ndarray | None
    end: str | None
    wanted: int | None = None

    @property
    def measured_ms(self) -> np.ndarray:
        """`times_ms` without warm-up, and without what was run beyond the budget to find its end."""
        last = None if self.wanted is None else self.warm_up.frames + self.wanted
        return self.times_ms[self.warm_up.frames : last]

    @property
    def measured_readings(self) -> tuple[Reading, ...]:
        """The readings taken once warm-up was over; all where fewer than two were."""
        settled = tuple(reading for reading in self.readings if reading.frames >= self.warm_up.frames)
        return settled if len(settled) > 1 else self.readings


def run_stream(
    source: Source,
    segmenter: Segmenter,
    sensors: Sensors,
    budget: Budget,
    *,
    size: tuple[int, int] | None = None,
    progress: Callable[[int, bool], None] = lambda frames, settled: None,
) -> StreamRun:
    """Time frames of `source`, which is begun anew where it ends, until `budget` is spent.

    size: (height, width) to scale frames to, None to take them as they are. Once a frame was timed an interrupt ends
    the run and is told in `end`; so is a source or backend that fails, and a live source that ends. Before, they are
    raised, and SourceError for a source that gives no frame.
    """
    recording = _Recording(sensors, budget)
    frames = _Frames(source)
    end = None
    try:
        while not recording.is_done():
            timed = time_frame(frames, segmenter, live=source.live, size=size)
            if timed is None:
                raise SourceError(f"{source.uri} ended")
            if not frames.begins_again:
                recording.add(*timed)
            progress(recording.measured, recording.warm_up is not None)
    except KeyboardInterrupt:
        if not recording.measured:
            raise
        end = INTERRUPTED
    except UserError as error:
        if not recording.measured:
            raise
        end = str(error).removesuffix(".")
    return recording.result(frames.passes, end)


class _Frames:
    """The frames of a source without end. passes: how often it was begun.

    begins_again: whether the frame just given is a film's first of a new pass, whose time is not the film's: the file
    was opened anew. Pictures have no such cost, and a film of one frame has no other.
    """

    def __init__(self, source: Source):
        self._source, self._frames = source, iter(source)
        self.passes, self.begins_again = 1, False
        self._given = 0

    def __iter__(self) -> Iterator[Frame]:
        return self

    def __next__(self) -> Frame:
        self.begins_again = False
        frame = next(self._frames, None)
        if frame is None:
            if not self._given:
                raise SourceError(f"{self._source.uri} gives no frames, so there is nothing to time; choose another.")
            if self._source.live:
                raise StopIteration
            self.begins_again = self._source.is_video and self._given > 1
            self._frames, self._given = iter(self._source), 0
            self.passes += 1
            return self._first_again()
        self._given += 1
        return frame

    def _first_again(self) -> Frame:
        frame = next(self._frames, None)
        if frame is None:
            raise SourceError(f"{self._source.uri} gives no frames when it is read again; choose another.")
        self._given = 1
        return frame


class _Recording:
    """The frames so far, the readings so far, and whether that is enough."""

    def __init__(self, sensors: Sensors, budget: Budget):
        self._sensors, self._budget = sensors, budget
        self._times: list[np.ndarray] = []
        self._moments: list[float] = []
        self._sizes: dict[tuple[int, int], None] = {}
        self._image: np.ndarray | None = None
        self._started = perf_counter()
        self._readings = [sensors.read(0)]
        self.warm_up: WarmUp | None = None

    @property
    def measured(self) -> int:
        """Frames after warm-up; all as long as that is not known."""
        return len(self._times) - (self.warm_up.frames if self.warm_up is not None else 0)

    def add(self, times_ms: np.ndarray, image: np.ndarray) -> None:
        """Keep a frame, and look at the sensors when it is time."""
        self._times.append(times_ms)
        self._moments.append(perf_counter() - self._started)
        self._sizes.setdefault((image.shape[0], image.shape[1]))
        self._image = image
        if perf_counter() - self._readings[-1].seconds >= READ_SENSORS_S:
            self._readings.append(self._sensors.read(len(self._times)))

    def is_done(self) -> bool:
        """Whether the run has settled and the budget is spent."""
        count = len(self._times)
        if self.warm_up is None and count >= HEAD_FRAMES + FOLLOWING_FRAMES and count % HEAD_FRAMES == 0:
            found = self._find_warm_up()
            self.warm_up = found if found.settled else None
        if self.warm_up is None and count and self._settles_too_long():
            self.warm_up = self._find_warm_up()
        if self.warm_up is None:
            return False
        first = self.warm_up.frames
        began = self._moments[first] if first < count else self._moments[-1]
        return self._budget.is_spent(count - first, self._moments[-1] - began)

    def result(self, passes: int, end: str | None) -> StreamRun:
        """Everything, with a last look at the sensors."""
        self._readings.append(self._sensors.read(len(self._times)))
        return StreamRun(
            times_ms=np.array(self._times).reshape(-1, len(STAGES)),
            moments_s=np.array(self._moments),
            warm_up=self.warm_up or self._find_warm_up(),
            readings=tuple(self._readings),
            passes=passes,
            sizes=tuple(self._sizes),
            image=self._image,
            end=end,
            wanted=self._budget.frames,
        )

    def _settles_too_long(self) -> bool:
        seconds = self._moments[-1]
        return (len(self._times) >= SETTLING_FRAMES and seconds >= SETTLING_S) or seconds >= LONGEST_SETTLING_S

    def _find_warm_up(self) -> WarmUp:
        return find_warm_up(np.array([times[_WATCHED] for times in self._times]))
