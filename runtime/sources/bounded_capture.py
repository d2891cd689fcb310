"""A capture whose reads end in time, for OpenCV's GStreamer, where they do not."""

from __future__ import annotations

import threading
from typing import Any


class BoundedCapture:
    """A cv2.VideoCapture read on a thread of its own, which is left when a read takes longer than `timeout_s`.

    Before OpenCV 4.7 its GStreamer waits for good for a server that is frozen or was cut off, and 30 seconds since. One
    thread uses it at a time. A read that was left goes on, and whoever left it opens another capture; this one is
    released when the read returns.
    """

    def __init__(self, capture: Any, timeout_s: float, name: str) -> None:
        self._capture, self._timeout_s, self._name = capture, timeout_s, name
        self._changed = threading.Condition()
        self._wanted = self._left = self._released = False
        self._grabbed: bool | None = None
        self._thread: threading.Thread | None = None

    def grab(self) -> bool:
        """Fetch the next frame; False when there is none, or none in time."""
        with self._changed:
            if self._left or self._released:
                return False
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=f"fcnedge reading {self._name}", daemon=True)
                self._thread.start()
            self._wanted, self._grabbed = True, None
            self._changed.notify_all()
            self._left = not self._changed.wait_for(lambda: self._grabbed is not None, self._timeout_s)
            return bool(self._grabbed)

    def retrieve(self) -> tuple[bool, Any]:
        """What the last `grab` fetched, as OpenCV gives it."""
        return self._capture.retrieve()

    def get(self, key: int) -> float:
        """A property."""
        return self._capture.get(key)

    def release(self) -> None:
        """Release it, or have it released by the read under way."""
        with self._changed:
            self._released = True
            self._changed.notify_all()
            thread = self._thread
        if thread is None:
            self._capture.release()
        elif not self._left:
            thread.join()  # no read is under way, or one that ends in time

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._wanted or self._released)
                if self._released:
                    break
                self._wanted = False
            grabbed = False
            try:
                grabbed = bool(self._capture.grab())
            finally:
                with self._changed:
                    self._grabbed = grabbed
                    self._changed.notify_all()
        self._capture.release()
