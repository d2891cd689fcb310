"""A video file as a source; one that breaks off gives the frames it has, and says so."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fcnedge.runtime.errors import SourceError
from fcnedge.runtime.opencv import load_cv2

from .frame import Frame, Source

_log = logging.getLogger(__name__)

_FPS_UNKNOWN = 25.0  # only for timestamps, where the file does not say


class VideoFileSource(Source):
    """Every frame of a video file, in order, none dropped."""

    def __init__(self, uri: str, path: Path) -> None:
        self._path = path
        _refuse_text(path)
        self._capture: Any = self._open()
        cv2 = load_cv2()
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        count = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        super().__init__(
            uri,
            is_video=True,
            fps=fps if math.isfinite(fps) and 0 < fps <= 1000 else None,
            length=int(count) if math.isfinite(count) and 0 < count < 2**31 else None,
            files=(path,),
        )

    def __iter__(self) -> Iterator[Frame]:
        capture = self._capture or self._open()
        self._capture = None  # a second iteration opens its own
        self.warning = None
        index = 0
        try:
            while True:
                ok, image = capture.read()
                if not ok or image is None:
                    break
                yield Frame(image, f"{self._path.stem}_{index:06d}", index, index / (self.fps or _FPS_UNKNOWN))
                index += 1
        finally:
            capture.release()
        self._judge_end(index)

    def close(self) -> None:
        """Release the file; iterating again opens it anew."""
        if self._capture is not None:
            self._capture.release()
            self._capture = None

    def _open(self) -> Any:
        capture = load_cv2().VideoCapture(str(self._path))
        if not capture.isOpened():
            raise SourceError(
                f"{self._path} is neither a picture nor a video that OpenCV can open, or it is damaged, or in a codec "
                "that OpenCV lacks; convert it to H.264 or copy it again"
            )
        return capture

    def _judge_end(self, delivered: int) -> None:
        """A count one too high is common where the container gives only a duration, and no sign of damage."""
        if delivered == 0:
            raise SourceError(f"no frame of {self._path} can be decoded; the file is damaged or its codec is missing")
        if self.length is not None and delivered < self.length - 1:
            self.warning = f"{self._path.name} promised {self.length} frames but ended after {delivered}"
            _log.warning("%s", self.warning)


def _refuse_text(path: Path) -> None:
    """FFmpeg plays any .txt as a film of a terminal; a real container has a zero byte in its headers."""
    try:
        with path.open("rb") as file:
            head = file.read(4096)
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}") from error
    if b"\0" not in head and not head.startswith(b"YUV4MPEG2"):
        raise SourceError(f"{path} is neither a picture nor a video: it looks like text")
