"""A camera through OpenCV: opened, read until it fails, and opened again by the next iteration."""

from __future__ import annotations

import threading
import time
from abc import abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np

from fcnedge.runtime.errors import SourceError
from fcnedge.runtime.opencv import load_cv2

from .frame import Frame, Source
from .gstreamer_opening import PipelineOpening


class CaptureSource(Source):
    """Frames of a cv2.VideoCapture as they come. A new kind implements `_open` and `_why_it_ended`.

    name: what frames are called. timeout_s: seconds that OpenCV's read may take, where it was told so.

    Iteration opens the camera unless it is open; when it fails it is released and SourceError raised, and iterating
    again opens it anew, with `Frame.index` counting on. `close` is for good, and may be called from any thread: a read
    that is under way is waited for by the thread that reads, which then releases the camera. OpenCV's captures must not
    be released under a read.
    """

    def __init__(self, uri: str, name: str, *, fps: float | None = None, timeout_s: float | None = None) -> None:
        super().__init__(uri, live=True, is_video=True, fps=fps)
        self._name, self._timeout_s = name, timeout_s
        self._index = 0
        self._lock = threading.Lock()
        self._capture: Any = None
        self._opening: PipelineOpening | None = None
        self._closed = False

    def __iter__(self) -> Iterator[Frame]:
        with self._lock:
            capture, self._capture = self._capture, None
        try:
            while not self._closed:
                capture = capture or self._opened()
                yield self._next(capture)
        except SourceError:
            if not self._closed:
                raise
        finally:
            if capture is not None:
                capture.release()

    def close(self) -> None:
        """End iteration, for good; the camera is released once the read under way returns."""
        with self._lock:
            self._closed = True
            capture, self._capture, opening = self._capture, None, self._opening
        if opening is not None:
            opening.close()
        if capture is not None:
            capture.release()

    @abstractmethod
    def _open(self) -> Any:
        """An open cv2.VideoCapture. Raises SourceError."""

    @abstractmethod
    def _why_it_ended(self) -> str:
        """One sentence about a read that failed."""

    def _open_pipeline(self, pipeline: str, shown: str, timeout_s: float) -> Any:
        """A capture of the pipeline, open or refused. Raises SourceError when there is none in time."""
        with self._lock:
            opening = self._opening = self._opening or PipelineOpening(pipeline, shown)
            closed = self._closed
        if closed:
            opening.close()
        return opening.capture(timeout_s)

    def _opened(self) -> Any:
        capture = self._open()
        fps = capture.get(load_cv2().CAP_PROP_FPS)
        self.fps = fps if 0 < fps <= 1000 else self.fps
        return capture

    def _next(self, capture: Any) -> Frame:
        started_s = time.monotonic()
        grabbed = capture.grab()
        timestamp_s = time.monotonic()  # between grab and retrieve: conversion is not part of the capture
        if self._timeout_s is not None and timestamp_s - started_s >= self._timeout_s:
            grabbed = False  # what came is not new: FFmpeg, timed out, empties its decoder
        ok, image = capture.retrieve() if grabbed else (False, None)
        if not ok or image is None or image.size == 0:
            raise SourceError(self._why_it_ended())
        index, self._index = self._index, self._index + 1
        return Frame(_as_bgr(image), f"{self._name}_{index:06d}", index, timestamp_s)


def _as_bgr(image: np.ndarray) -> np.ndarray:
    """Grey cameras, and a user's own pipeline with an alpha channel, come as BGR like all others."""
    if image.ndim == 3 and image.shape[2] == 3:
        return image
    cv2 = load_cv2()
    code = cv2.COLOR_BGRA2BGR if image.ndim == 3 and image.shape[2] == 4 else cv2.COLOR_GRAY2BGR
    return cv2.cvtColor(image, code)
