"""A webcam (Video4Linux) as a live source: through GStreamer where OpenCV has it, else through OpenCV's own V4L2."""

from __future__ import annotations

import contextlib
import logging
import sys
from pathlib import Path
from typing import Any

from fcnedge.runtime.errors import SourceError
from fcnedge.runtime.opencv import load_cv2

from .capture import CaptureSource
from .gstreamer import v4l2_pipeline
from .gstreamer_parser import INSTALL_PLUGINS, check_pipeline
from .input_options import InputOptions
from .opencv_build import opencv_has

_log = logging.getLogger(__name__)

_FOURCC = {"mjpeg": "MJPG", "raw": "YUYV", "h264": "H264"}


class WebcamSource(CaptureSource):
    """Frames as the camera delivers them. It is opened at once, so that a missing or busy one is refused at once.

    device: "/dev/video0". options: width, height, rate and codec to ask the camera for; through V4L2 it may give
    others, which the log says. OpenCV's read gives up after ten silent seconds
    (OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT), so `close` takes effect by then at the latest.
    """

    def __init__(self, uri: str, device: str, options: InputOptions) -> None:
        super().__init__(uri, Path(device).name, fps=options.rate)
        self._device, self._options = device, options
        with contextlib.ExitStack() as refused:
            refused.callback(self.close)
            self._capture = self._opened()
            refused.pop_all()

    def is_there(self) -> bool | None:
        """Whether the device exists; None on a system whose cameras are not files."""
        return Path(self._device).exists() if sys.platform.startswith("linux") else None

    def _open(self) -> Any:
        cv2 = load_cv2()
        if self.is_there() is False:
            raise SourceError(f"there is no camera {self._device}{_cameras_here()}")
        if sys.platform.startswith("linux") and opencv_has("GStreamer"):
            pipeline, shown = v4l2_pipeline(self._device, self._options), f"camera {self._device}"
            check_pipeline(pipeline, shown, INSTALL_PLUGINS)
            capture = self._open_pipeline(pipeline, shown, self._options.timeout_s)
        elif sys.platform.startswith("linux"):
            capture = self._ask(cv2.VideoCapture(self._device, cv2.CAP_V4L2))
        else:
            number = self._device.removeprefix("/dev/video")
            capture = self._ask(cv2.VideoCapture(int(number) if number.isdigit() else self._device))
        if not capture.isOpened():
            raise SourceError(
                f"camera {self._device} cannot be opened: another program may use it, it may not have the size, rate "
                "or codec asked for, or your user may not be in the group video"
            )
        return capture

    def _ask(self, capture: Any) -> Any:
        """Put the wishes to the camera; codec first, for it decides which sizes and rates there are."""
        cv2, options = load_cv2(), self._options
        wishes: dict[int, float] = {}
        if options.codec is not None:
            if options.codec not in _FOURCC:
                raise SourceError(f"a webcam is asked for {', '.join(_FOURCC)} here, not for {options.codec}")
            wishes[cv2.CAP_PROP_FOURCC] = cv2.VideoWriter.fourcc(*_FOURCC[options.codec])
        if options.width is not None and options.height is not None:
            wishes |= {cv2.CAP_PROP_FRAME_WIDTH: options.width, cv2.CAP_PROP_FRAME_HEIGHT: options.height}
        if options.rate is not None:
            wishes[cv2.CAP_PROP_FPS] = options.rate
        for wish, value in wishes.items() if capture.isOpened() else ():
            capture.set(wish, value)
            got = capture.get(wish)
            if round(got) != round(value):
                _log.warning("camera %s was asked for %g but gives %g", self._device, value, got)
        return capture

    def _why_it_ended(self) -> str:
        return f"camera {self._device} stopped delivering frames after {self._index}; is it plugged in?"


def _cameras_here() -> str:
    cameras = sorted(str(path) for path in Path("/dev").glob("video*"))
    return f"; this machine has {', '.join(cameras)}" if cameras else "; this machine shows none (/dev/video*)"
