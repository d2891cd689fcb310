"""Cameras that only GStreamer reads: a Jetson's CSI sensor, and pipelines as their user typed them."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any

from fcnedge.runtime.errors import SourceError
from fcnedge.runtime.opencv import load_cv2

from .address import hide_password
from .capture import CaptureSource
from .frame import Frame, Source
from .gstreamer import csi_pipeline, is_live_pipeline, user_pipeline
from .gstreamer_opening import PipelineOpening
from .gstreamer_parser import check_pipeline
from .input_options import InputOptions
from .opencv_build import on_jetson, require_gstreamer


def open_csi(uri: str, options: InputOptions) -> Source:
    """csi://0. Raises SourceError where it names no sensor, off a Jetson, and without GStreamer in OpenCV."""
    sensor = uri.partition("://")[2].rstrip("/")
    if not re.fullmatch(r"[0-9]{1,3}", sensor):
        raise SourceError(f"{uri} names no CSI camera; write csi://0, the number being the sensor's")
    require_gstreamer(f"a CSI camera ({uri})")
    if not on_jetson():
        raise SourceError(f"{uri} is a CSI camera, and this machine is no Jetson; a USB camera is /dev/video0")
    why = "is the sensor connected and nvargus-daemon running (sudo systemctl restart nvargus-daemon)?"
    return PipelineSource(uri, csi_pipeline(int(sensor), options), options, name=f"csi{sensor}", why=why)


def open_user_pipeline(text: str, options: InputOptions) -> Source:
    """A GStreamer pipeline as typed. Raises SourceError without GStreamer in OpenCV."""
    require_gstreamer("a GStreamer pipeline")
    shown, pipeline = hide_password(text), user_pipeline(text)
    if not is_live_pipeline(text):
        return RecordedPipelineSource(shown, pipeline)
    return PipelineSource(shown, pipeline, options, name="gstreamer", why=_TRY_IT)


class PipelineSource(CaptureSource):
    """A live GStreamer pipeline that ends in an appsink.

    name: what frames are called. why: what to check when it does not run. options: the rate, where that is asked for;
    timeout_s bounds the wait for the first frame. One that falls silent later is given up by OpenCV itself, after 30
    seconds where its version has that timeout (4.7); before, a `Stream` says that nothing comes.
    """

    def __init__(self, uri: str, pipeline: str, options: InputOptions, *, name: str, why: str) -> None:
        super().__init__(uri, name, fps=options.rate)
        self._pipeline, self._why, self._wait_s = pipeline, why, options.timeout_s

    def _open(self) -> Any:
        check_pipeline(self._pipeline, self.uri, self._why)
        return _if_open(self._open_pipeline(self._pipeline, self.uri, self._wait_s), self.uri, self._why)

    def _why_it_ended(self) -> str:
        return f"{self.uri} stopped delivering frames after {self._index}; {self._why}"


class RecordedPipelineSource(Source):
    """A pipeline that plays a file: every frame, to its end."""

    def __init__(self, uri: str, pipeline: str) -> None:
        super().__init__(uri, is_video=True)
        self._pipeline = pipeline

    def __iter__(self) -> Iterator[Frame]:
        check_pipeline(self._pipeline, self.uri, _TRY_IT)
        with contextlib.closing(PipelineOpening(self._pipeline, self.uri)) as opening:
            capture = _if_open(opening.capture(_FILM_S), self.uri, _TRY_IT)
        fps = capture.get(load_cv2().CAP_PROP_FPS)
        self.fps = fps if 0 < fps <= 1000 else None
        index = 0
        try:
            while True:
                ok, image = capture.read()
                if not ok or image is None:
                    break
                yield Frame(image, f"gstreamer_{index:06d}", index, index / (self.fps or 25.0))
                index += 1
        finally:
            capture.release()
        if index == 0:
            raise SourceError(f"{self.uri} gave no frame; {_TRY_IT}")


_TRY_IT = "try it with gst-launch-1.0 first."
_FILM_S = 30.0  # a file may lie far away; it is OpenCV's own limit, too, where it has one


def _if_open(capture: Any, shown: str, why: str) -> Any:
    if not capture.isOpened():
        raise SourceError(f"GStreamer cannot run {shown}; {why}")
    return capture
