"""Opening a GStreamer pipeline in OpenCV, with an end to the waiting.

A pipeline that is in order but silent, such as `udpsrc` with no sender, keeps `cv2.VideoCapture` for 30 seconds, and
before OpenCV 4.7 for good, in a call that nothing ends. So the call has a thread of its own, which can be left.
"""

from __future__ import annotations

import threading
from typing import Any

from fcnedge.runtime.errors import SourceError
from fcnedge.runtime.opencv import load_cv2


class PipelineOpening:
    """Opens one pipeline as often as it is asked to. shown: what the user calls it, without a password.

    A call that did not return in time goes on, and is what the next `capture` waits for: two at once would want one
    camera twice. One thread asks at a time; `close` may be called from another.
    """

    def __init__(self, pipeline: str, shown: str) -> None:
        self._pipeline, self._shown = pipeline, shown
        self._changed = threading.Condition()
        self._under_way = self._closed = False
        self._capture: Any = None

    def capture(self, timeout_s: float) -> Any:
        """A cv2.VideoCapture, open or refused. Raises SourceError when there is none in time, and after `close`."""
        with self._changed:
            if not self._under_way and self._capture is None:
                self._under_way = True
                threading.Thread(target=self._open, name=f"fcnedge opening {self._shown}", daemon=True).start()
            self._changed.wait_for(lambda: not self._under_way or self._closed, timeout_s)
            capture, self._capture = self._capture, None
            if self._closed:
                raise SourceError(f"{self._shown} was closed")
            if capture is None:
                raise SourceError(f"{self._shown} has sent nothing for {timeout_s:g} seconds")
            return capture

    def close(self) -> None:
        """End a `capture` under way, for good; what OpenCV still opens is released by the thread that waits for it."""
        with self._changed:
            self._closed = True
            capture, self._capture = self._capture, None
            self._changed.notify_all()
        if capture is not None:
            capture.release()

    def _open(self) -> None:
        capture = None
        try:
            cv2 = load_cv2()
            capture = cv2.VideoCapture(self._pipeline, cv2.CAP_GSTREAMER)
        finally:
            with self._changed:
                self._under_way = False
                self._capture = None if self._closed else capture
                self._changed.notify_all()
            if self._closed and capture is not None:
                capture.release()
