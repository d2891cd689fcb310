"""Where masks and overlays go: nowhere, a folder, one picture file, or a video file."""

from __future__ import annotations

import contextlib
import logging
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import UserError
from .opencv import load_cv2
from .palette import encode_label_png, voc_palette
from .sources import Frame, Source
from .sources.listing import OUTPUT_MARKER
from .streams.result import StreamResult

if TYPE_CHECKING:
    from typing_extensions import Self  # typing.Self needs Python 3.11

_log = logging.getLogger(__name__)

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
VIDEO_CODECS = {".mp4": "mp4v", ".avi": "MJPG"}
"""FourCC per ending: what OpenCV's wheels bring encoders for; they have none for H.264."""

_FPS_UNKNOWN = 25.0


class Sink(ABC):
    """Takes one frame, mask and overlay after another; a context manager. Raises UserError when it cannot write.

    uri: as the user gave it. written: number of frames taken.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.written = 0

    @abstractmethod
    def write(self, frame: Frame, mask: np.ndarray, overlay: np.ndarray) -> None:
        """mask: (H, W) uint8 class ids; overlay: (H, W, 3) uint8 BGR. Raises UserError when it cannot be written."""

    def take(self, result: StreamResult, overlay: np.ndarray) -> None:
        """Take a result with all that is known of it; as `write`."""
        self.write(result.frame, result.segmentation.mask, overlay)

    def close(self) -> None:  # noqa: B027 - most sinks finish each file as they go
        """Finish the output; more than once does no harm. Raises UserError when it turns out incomplete."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # An error already under way is the one to show, not what closing makes of its remains.
        with contextlib.suppress(UserError) if error is not None else contextlib.nullcontext():
            self.close()


def open_sink(
    uri: str | os.PathLike[str] | None,
    *,
    source: Source | None = None,
    fps: float | None = None,
    palette: np.ndarray | None = None,
) -> Sink:
    """Open what the URI names.

    uri: None or `null://` (nothing is written); a folder ("out", "out/": masks/NAME.png with class ids and palette as
    VOC has them, overlays/NAME.jpg); a picture file, for the overlay of one picture; a video file (.mp4, .avi), for
    the overlays; `file://` and any of these. source: where the frames come from; gives the frame rate, and a sink that
    cannot hold it, or would overwrite its files, is refused at once. fps: frame rate of a video file, the source's (or
    25) when None. palette: (n, 3) uint8 RGB for masks, VOC's when None.

    Raises UserError, in one sentence, for what is unknown, does not fit the source or cannot be written.
    """
    if uri is None or uri == "null://":
        return NullSink("null://")
    text = os.fspath(uri)
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", text)
    if scheme and scheme[1].lower() != "file":
        raise UserError(f"this version does not write to {scheme[1].lower()}://; it writes {_SUPPORTED}")
    name = text[scheme.end() :] if scheme else text
    if not name:
        raise UserError(f"no output was given; fcnedge writes {_SUPPORTED}")
    path = Path(name).expanduser()
    suffix = path.suffix.lower()
    files = source.files if source is not None else ()
    # Before Python 3.14 Path.is_dir raises where os.path.isdir says no; what is wrong shows on writing.
    if os.path.isdir(path) or name.endswith(("/", os.sep)) or not suffix:  # noqa: PTH112
        if source is not None and source.folder is not None and _same_file(source.folder, path):
            raise UserError(f"{text} is the source itself; write into a folder of its own, such as {path / 'out'}")
        return FolderSink(text, path, voc_palette() if palette is None else palette, files)
    if suffix in VIDEO_CODECS:
        _refuse_overwriting(path, files)
        if source is not None and source.mixed_sizes:
            raise UserError(f"{text} would have one size, but the pictures of {source.uri} have several; name a folder")
        return VideoSink(text, path, fps or (source.fps if source else None) or _FPS_UNKNOWN)
    if suffix in PICTURE_SUFFIXES:
        _refuse_overwriting(path, files)
        if source is not None and source.length != 1:
            raise UserError(f"{text} holds one picture, but {source.uri} gives more; name a folder or a .mp4 file")
        return PictureSink(text, path)
    raise UserError(f"{text} has an ending that cannot be written; fcnedge writes {_SUPPORTED}")


_SUPPORTED = f"a folder (end it with /), a picture ({', '.join(PICTURE_SUFFIXES)}), a video (.mp4, .avi) and null://"


class NullSink(Sink):
    """Writes nothing; counts."""

    def write(self, frame: Frame, mask: np.ndarray, overlay: np.ndarray) -> None:
        """Count the frame."""
        self.written += 1


class FolderSink(Sink):
    """masks/NAME.png and overlays/NAME.jpg in a folder. A name that comes twice in a run becomes NAME_2.

    What an earlier run wrote is replaced; a masks/ or overlays/ with files of others, or of the source, is refused.
    """

    def __init__(self, uri: str, folder: Path, palette: np.ndarray, source_files: Iterable[Path] = ()) -> None:
        super().__init__(uri)
        self._masks, self._overlays = folder / "masks", folder / "overlays"
        self._palette = palette
        self._used: set[str] = set()
        marker = folder / OUTPUT_MARKER
        for part in (self._masks, self._overlays):
            _refuse_files_of_others(part, source_files, ours=os.path.exists(marker))  # noqa: PTH110
        for part in (self._masks, self._overlays):
            _make_folder(part)
        _write_atomically(marker, b"fcn-run wrote masks/ and overlays/ here; its next run may replace them.\n")

    def write(self, frame: Frame, mask: np.ndarray, overlay: np.ndarray) -> None:
        """Write both pictures. Raises UserError when one cannot be written."""
        name = self._unused(frame.name)
        _write_atomically(self._masks / f"{name}.png", encode_label_png(mask, self._palette))
        _write_atomically(self._overlays / f"{name}.jpg", _encode(".jpg", overlay))
        self.written += 1

    def _unused(self, wanted: str) -> str:
        name, count = wanted, 1
        while name.lower() in self._used:  # cat.jpg and Cat.png meet on disks that ignore case
            count += 1
            name = f"{wanted}_{count}"
        if name != wanted:
            _log.warning("%s came twice; this one is written as %s", wanted, name)
        self._used.add(name.lower())
        return name


class PictureSink(Sink):
    """The overlay of one picture, in the format that the ending names."""

    def __init__(self, uri: str, path: Path) -> None:
        super().__init__(uri)
        self._path = path
        _make_folder(path.parent)

    def write(self, frame: Frame, mask: np.ndarray, overlay: np.ndarray) -> None:
        """Write the overlay. Raises UserError for a second picture, or when it cannot be written."""
        if self.written:
            raise UserError(f"{self._path} holds one picture, but a second came; name a folder or a .mp4 file")
        _write_atomically(self._path, _encode(self._path.suffix, overlay))
        self.written += 1


class VideoSink(Sink):
    """The overlays as a film, under its final name from the first frame on.

    `close` finishes it, after an error or an interrupt too. Of a process that is killed outright an .avi holds all but
    the last frames; an .mp4 has its index at the end and is lost.
    """

    def __init__(self, uri: str, path: Path, fps: float) -> None:
        super().__init__(uri)
        self._path = path
        self._fps = _writable_rate(fps)
        self._codec = VIDEO_CODECS[path.suffix.lower()]
        self._size: tuple[int, int] | None = None
        self._writer: Any = None
        _make_folder(path.parent)

    def write(self, frame: Frame, mask: np.ndarray, overlay: np.ndarray) -> None:
        """Append the overlay. Raises UserError for another size, or when the codec does not open."""
        size = (overlay.shape[1], overlay.shape[0])
        if self._size is None:
            self._writer = self._open(size)
            self._size = size
        if size != self._size:  # cv2.VideoWriter would drop it without a word
            raise UserError(
                f"{self._path} is {self._size[0]}x{self._size[1]}, but {frame.name} is {size[0]}x{size[1]}; "
                "a video has one size: name a folder instead"
            )
        self._writer.write(np.ascontiguousarray(overlay))
        self.written += 1

    def close(self) -> None:
        """Finish the file. Raises UserError when it holds fewer frames than were written."""
        if self._writer is None:
            return
        self._writer.release()
        self._writer = None
        held = _count_frames(self._path)
        if held < self.written:  # cv2.VideoWriter reports no full disk
            raise UserError(f"{self._path} holds {held} of {self.written} frames; is the disk full?")

    def _open(self, size: tuple[int, int]) -> Any:
        cv2 = load_cv2()
        writer = cv2.VideoWriter(str(self._path), cv2.VideoWriter.fourcc(*self._codec), self._fps, size)
        if not writer.isOpened():
            raise UserError(
                f"{self._path} cannot be written as {size[0]}x{size[1]} video with codec {self._codec} at "
                f"{self._fps:g} frames per second; check that the folder is writable, or try .avi or .mp4 instead"
            )
        return writer


def _writable_rate(fps: float) -> float:
    """With fewer decimals where need be: MPEG-4 has 16 bits for the parts of a second (ISO/IEC 14496-2).

    OpenCV makes a fraction of the rate, 90.123 becoming 90123/1000, and 0.001 becoming 0.
    """
    rates = (round(fps, decimals) for decimals in (3, 2, 1) if fps * 10**decimals <= 65535)
    return max(next(rates, round(fps)), 0.01)


def _count_frames(path: Path) -> int:
    cv2 = load_cv2()
    capture = cv2.VideoCapture(str(path)) if path.is_file() and path.stat().st_size else None
    if capture is None or not capture.isOpened():
        return 0
    try:
        return max(0, int(capture.get(cv2.CAP_PROP_FRAME_COUNT)))
    finally:
        capture.release()


def _encode(suffix: str, image: np.ndarray) -> bytes:
    ok, data = load_cv2().imencode(suffix.lower(), np.ascontiguousarray(image))
    if not ok:
        raise UserError(f"OpenCV cannot encode a picture of {image.shape[1]}x{image.shape[0]} as {suffix}")
    return data.tobytes()


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"the folder {folder} cannot be made: {error.strerror}") from error


def _write_atomically(path: Path, data: bytes) -> None:
    """Under another name first: whoever sees the final name sees a whole file."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(data)
        part.replace(path)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from error
    finally:  # after Ctrl-C too
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def _refuse_overwriting(path: Path, source_files: Iterable[Path]) -> None:
    if any(_same_file(file, path) for file in source_files):
        raise UserError(f"{path} is the source itself, or one of its files; give the output another name")


def _same_file(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:  # one of them is not there
        return False


def _refuse_files_of_others(folder: Path, source_files: Iterable[Path], *, ours: bool) -> None:
    if not os.path.isdir(folder):  # noqa: PTH112 - as in open_sink
        return
    if folder.resolve() in {file.resolve().parent for file in source_files}:
        raise UserError(f"{folder} holds the source's own files, which the output may overwrite; name another folder")
    if not ours and _holds_files(folder):
        raise UserError(f"{folder} holds files that fcn-run did not write; name another folder, or move them away")


def _holds_files(folder: Path) -> bool:
    try:
        return any(folder.iterdir())
    except OSError as error:
        raise UserError(f"the folder {folder} cannot be read: {error.strerror}") from error
