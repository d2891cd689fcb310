"""An RTSP camera: through the hardware decoder on a Jetson, through FFmpeg elsewhere."""

from __future__ import annotations

import os
from typing import Any

from fcnedge.runtime.errors import SourceError
from fcnedge.runtime.opencv import load_cv2

from .address import hide_password, host_and_port, split_address, why_no_connection
from .bounded_capture import BoundedCapture
from .capture import CaptureSource
from .gstreamer import rtsp_pipeline
from .gstreamer_parser import INSTALL_PLUGINS, check_pipeline
from .input_options import InputOptions
from .opencv_build import on_jetson, opencv_has

FFMPEG_OPTIONS = "rtsp_transport;tcp|fpsprobesize;0"
"""For OPENCV_FFMPEG_CAPTURE_OPTIONS, which has no counterpart in OpenCV's interface: TCP, for lost UDP packets are torn
pictures; and no second of film read on opening only to measure its frame rate (1.0 s became 0.35 s)."""


class RtspSource(CaptureSource):
    """Frames of an RTSP stream. Opened by the first iteration: a camera may be switched on after the robot.

    options: timeout_s bounds opening and each read; latency_ms and codec are for GStreamer, where a codec that RTSP has
    not is refused at once. Opening and reading return within about timeout_s, so `close` takes effect by then at the
    latest; a read through GStreamer that does not is left to a thread of its own.
    """

    def __init__(self, address: str, options: InputOptions) -> None:
        self._parts = split_address(address)
        self._address, self._options = address, options
        self._gstreamer = opencv_has("GStreamer") and (on_jetson() or not opencv_has("FFMPEG"))
        if not self._gstreamer and not opencv_has("FFMPEG"):
            raise SourceError(
                f"{hide_password(address)} needs an OpenCV with FFmpeg or GStreamer, and OpenCV "
                f"{load_cv2().__version__} here has neither; install opencv-python, or use the system's OpenCV"
            )
        self._pipeline = rtsp_pipeline(self._parts, options, jetson=on_jetson()) if self._gstreamer else ""
        if not self._gstreamer:
            # Once, and a user's own stands. OpenCV reads it whenever FFmpeg opens something; films play as before.
            os.environ.setdefault("OPENCV_FFMPEG_CAPTURE_OPTIONS", FFMPEG_OPTIONS)
        super().__init__(
            hide_password(address),
            self._parts.hostname or "rtsp",
            timeout_s=None if self._gstreamer else options.timeout_s,
        )

    def is_there(self) -> bool:
        """Whether something listens at the address's port, asked by one TCP connection of half a second at most."""
        return why_no_connection(*host_and_port(self._parts), timeout_s=0.5) is None

    def _open(self) -> Any:
        # Asked first: OpenCV gives no reason, and FFmpeg writes to the terminal for each camera that is switched off.
        unreachable = why_no_connection(*host_and_port(self._parts), timeout_s=min(2.0, self._options.timeout_s))
        if unreachable:
            raise SourceError(f"{self.uri} cannot be opened: {unreachable}")
        cv2 = load_cv2()
        if self._gstreamer:
            check_pipeline(self._pipeline, self.uri, INSTALL_PLUGINS)
            capture = self._open_pipeline(self._pipeline, self.uri, self._options.timeout_s)
        else:
            milliseconds = max(1, round(self._options.timeout_s * 1000))
            wishes = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, milliseconds, cv2.CAP_PROP_READ_TIMEOUT_MSEC, milliseconds]
            if hasattr(cv2, "CAP_PROP_N_THREADS"):
                # FFmpeg's frame threads each hold a frame back: on 16 cores half a second at 30 frames per second.
                wishes += [cv2.CAP_PROP_N_THREADS, 1]
            capture = cv2.VideoCapture(self._address, cv2.CAP_FFMPEG, wishes)
        if not capture.isOpened():
            raise SourceError(
                f"{self.uri} cannot be opened: something listens there but gives no film within "
                f"{self._options.timeout_s:g} seconds; check path, user, password and codec"
            )
        return BoundedCapture(capture, self._options.timeout_s, self.uri) if self._gstreamer else capture

    def _why_it_ended(self) -> str:
        return f"{self.uri} ended, or sent nothing for {self._options.timeout_s:g} seconds"
