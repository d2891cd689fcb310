"""A webcam (Video4Linux) as a live source."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fcnedge.runtime.errors import SourceError
from fcnedge.runtime.opencv import load_cv2

from .frame import Frame, Source

_log = logging.getLogger(__name__)


class WebcamSource(Source):
    """Frames as the camera delivers them.

    device: "/dev/video0". size: (width, height) in pixels and fps: what to ask the camera for; it may give another,
    which the log says.
    """

    def __init__(self, uri: str, device: str, *, size: tuple[int, int] | None = None, fps: float | None = None) -> None:
        self._device = device
        self._capture: Any = _open(device)
        cv2 = load_cv2()
        wishes: dict[int, float] = {}
        if size is not None:
            wishes |= {cv2.CAP_PROP_FRAME_WIDTH: size[0], cv2.CAP_PROP_FRAME_HEIGHT: size[1]}
        if fps is not None:
            wishes[cv2.CAP_PROP_FPS] = fps
        for wish, value in wishes.items():
            self._capture.set(wish, value)
            got = self._capture.get(wish)
            if round(got) != round(value):
                _log.warning("camera %s was asked for %g but gives %g", device, value, got)
        actual = self._capture.get(cv2.CAP_PROP_FPS)
        super().__init__(uri, live=True, is_video=True, fps=actual if actual > 0 else None)

    def __iter__(self) -> Iterator[Frame]:
        index = 0
        while self._capture is not None:
            grabbed = self._capture.grab()
            timestamp_s = time.monotonic()  # between grab and retrieve: decoding is not part of the capture
            ok, image = self._capture.retrieve() if grabbed else (False, None)
            if not ok or image is None:
                raise SourceError(f"camera {self._device} stopped delivering frames after {index}; is it plugged in?")
            yield Frame(image, f"{Path(self._device).name}_{index:06d}", index, timestamp_s)
            index += 1

    def close(self) -> None:
        """Release the camera; iteration ends."""
        if self._capture is not None:
            self._capture.release()
            self._capture = None


def _open(device: str) -> Any:
    cv2 = load_cv2()
    if sys.platform.startswith("linux"):
        if not Path(device).exists():
            raise SourceError(f"there is no camera {device}{_cameras_here()}")
        capture = cv2.VideoCapture(device, cv2.CAP_V4L2)
    else:
        number = device.removeprefix("/dev/video")
        capture = cv2.VideoCapture(int(number) if number.isdigit() else device)
    if not capture.isOpened():
        raise SourceError(
            f"camera {device} cannot be opened: another program may use it, or your user may not be in the group video"
        )
    return capture


def _cameras_here() -> str:
    cameras = sorted(str(path) for path in Path("/dev").glob("video*"))
    return f"; this machine has {', '.join(cameras)}" if cameras else "; this machine shows none (/dev/video*)"
