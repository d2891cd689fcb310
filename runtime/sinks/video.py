"""A video file that plays at any moment: after a kill it holds every frame that was taken."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np

from ..errors import UserError
from ..streams.result import StreamResult
from .avi_file import AviFile
from .files import encode_picture, make_folder
from .mp4_file import Mp4File
from .mpeg4 import Mpeg4Encoder, sequence_header
from .sink import Sink, drawn

VIDEO_CODECS = {".mp4": "mp4v", ".avi": "MJPG"}
"""FourCC per ending: what OpenCV's wheels bring encoders for; they have none for H.264."""

_JPEG_QUALITY = 85  # half the bytes of 95, which single pictures get


class VideoSink(Sink):
    """What is drawn as a film, under its final name from the first frame on.

    Each frame is in the file when `take` returns, and the file plays, also when the process is killed outright. `close`
    adds the index, after an error or an interrupt too. fps: frames per second.
    """

    def __init__(self, uri: str, path: Path, fps: float, shows: Sequence[str] = ("overlay",)) -> None:
        super().__init__(uri)
        self.shows = tuple(shows)
        self._path = path
        self._fps = _writable_rate(fps)
        self._film: _Film | None = None
        self._size = (0, 0)
        make_folder(path.parent)

    def take(self, result: StreamResult, picture: np.ndarray | None) -> None:
        """Append the picture. Raises UserError for another size, or when it cannot be encoded or written."""
        image = np.ascontiguousarray(drawn(picture))
        size = (image.shape[1], image.shape[0])
        if self._film is None:
            kind = _Mpeg4Film if VIDEO_CODECS[self._path.suffix.lower()] == "mp4v" else _JpegFilm
            self._size = size
            self._film = kind(self._path, size, self._fps)
        if size != self._size:
            raise UserError(
                f"{self._path} is {self._size[0]}x{self._size[1]}, but {result.frame.name} is {size[0]}x{size[1]}; "
                "a video has one size: name a folder instead"
            )
        self._film.add(image)
        self.written += 1

    def close(self) -> None:
        """Finish the file. Raises UserError when its index cannot be written; it plays without."""
        if self._film is not None:
            self._film.finish()


class _Film(ABC):
    """An encoder and a container."""

    @abstractmethod
    def add(self, image: np.ndarray) -> None: ...

    @abstractmethod
    def finish(self) -> None: ...


class _Mpeg4Film(_Film):
    """Of an odd width or height the last column or row is left off: colours have half the size in MPEG-4."""

    def __init__(self, path: Path, size: tuple[int, int], fps: float) -> None:
        self._path, self._fps = path, fps
        self._width, self._height = size[0] // 2 * 2, size[1] // 2 * 2
        self._encoder = Mpeg4Encoder((self._width, self._height), fps)
        self._file: Mp4File | None = None

    def add(self, image: np.ndarray) -> None:
        packet = self._encoder.encode(np.ascontiguousarray(image[: self._height, : self._width]))
        header = sequence_header(packet)
        if self._file is None:
            self._file = Mp4File(self._path, (self._width, self._height), _fraction(self._fps), header)
        self._file.add(packet, key=bool(header))

    def finish(self) -> None:
        self._encoder.close()
        if self._file is not None:
            self._file.finish()


class _JpegFilm(_Film):
    def __init__(self, path: Path, size: tuple[int, int], fps: float) -> None:
        self._file = AviFile(path, size, _fraction(fps))

    def add(self, image: np.ndarray) -> None:
        self._file.add(encode_picture(".jpg", image, _JPEG_QUALITY))

    def finish(self) -> None:
        self._file.finish()


def _writable_rate(fps: float) -> float:
    """With fewer decimals where need be: MPEG-4 has 16 bits for the parts of a second (ISO/IEC 14496-2).

    OpenCV makes a fraction of the rate, 90.123 becoming 90123/1000, and 0.001 becoming 0.
    """
    rates = (round(fps, decimals) for decimals in (3, 2, 1) if fps * 10**decimals <= 65535)
    return max(next(rates, round(fps)), 0.01)


def _fraction(fps: float) -> Fraction:
    return Fraction(fps).limit_denominator(1000)
