"""From what the user typed (a path, a pattern, a camera, a URI) to the source that reads it.

A new kind of source (csi://, rtsp://) is one more file beside this one and one more entry in `_SCHEMES`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from os import PathLike, fspath
from pathlib import Path
from urllib.parse import unquote

from fcnedge.runtime.errors import SourceError
from fcnedge.runtime.opencv import load_cv2

from .demonstration import open_demo
from .frame import Source
from .listing import NUMBERED, folder_pictures, glob_pictures, numbered_pictures
from .picture_file import PICTURE_SUFFIXES, check_not_empty
from .pictures import PictureSource
from .video_file import VideoFileSource
from .webcam import WebcamSource

SUPPORTED = (
    "pictures, folders, globs, numbered pictures (image_%04d.jpg), video files, "
    "webcams (0, /dev/video0, v4l2:///dev/video0) and demo://"
)


def open_source(
    uri: str | PathLike[str],
    *,
    size: tuple[int, int] | None = None,
    fps: float | None = None,
) -> Source:
    """Open what the URI names.

    uri: a picture, a folder of pictures, a glob ("shots/*.jpg", "**" too), numbered pictures ("image_%04d.jpg"), a
    video file, `file://` and any of these, a webcam ("0", "/dev/video0", "v4l2:///dev/video0"), `demo://`
    (photographs) or `demo://clip` (a short film). A file or folder called "0" comes before the webcam of that number.
    size: (width, height) in pixels and fps: frames per second to ask a webcam for; other sources have their own, and
    refuse them.

    Raises SourceError, in one sentence, for what is missing, empty, damaged, of an unknown kind or not supported.
    """
    text = fspath(uri)
    try:
        device = _webcam_device(text)
        if device is not None:
            return WebcamSource(text, device, size=size, fps=fps)
        if size is not None or fps is not None:
            raise SourceError(f"{text} is not a camera, so no size or frame rate can be asked of it; leave them out")
        return _open_recorded(text)
    except OSError as error:  # to ask whether a path exists may be forbidden, or its name too long to ask
        raise SourceError(f"{text} cannot be read: {error.strerror}") from error


def _open_recorded(text: str) -> Source:
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", text)
    if scheme is None:
        return _open_path(text, text)
    opener = _SCHEMES.get(scheme[1].lower())
    if opener is None:  # the rest of the address is not repeated: it may hold a password
        raise SourceError(f"this version does not read {scheme[1].lower()}:// sources; it reads {SUPPORTED}")
    return opener(text)


def _open_file_uri(uri: str) -> Source:
    raw = uri[len("file://") :].removeprefix("localhost")
    # RFC 8089 has percent-encoding, but a path may also be typed as it is, with a % of its own.
    literal = Path(raw).exists() or NUMBERED.search(Path(raw).name)
    return _open_path(uri, raw if literal else unquote(raw))


_SCHEMES: dict[str, Callable[[str], Source]] = {"file": _open_file_uri, "demo": open_demo}


def _open_path(uri: str, text: str) -> Source:
    if not text:
        raise SourceError(f"no source was given; fcnedge reads {SUPPORTED}")
    path, folder = Path(text).expanduser(), None
    if path.is_dir():
        files, skipped = folder_pictures(path)
        folder = path
    elif path.exists():
        if not _is_picture(path):
            return VideoFileSource(uri, path)
        files, skipped = [path], 0
    elif NUMBERED.search(path.name):
        files, skipped = numbered_pictures(path), 0
    elif any(character in text for character in "*?["):
        files, skipped = glob_pictures(path)
    elif " ! " in text:
        raise SourceError(f"this version does not read GStreamer pipelines; it reads {SUPPORTED}")
    else:
        raise SourceError(f"{text} does not exist")
    return PictureSource(uri, files, skipped=skipped, folder=folder)


def _is_picture(path: Path) -> bool:
    """By its ending; by its first bytes when the ending says nothing. A GIF counts as a film: it often is one."""
    check_not_empty(path)
    suffix = path.suffix.lower()
    return suffix in PICTURE_SUFFIXES or (suffix != ".gif" and load_cv2().haveImageReader(str(path)))


def _webcam_device(text: str) -> str | None:
    """The device behind "0", "/dev/video0" or "v4l2:///dev/video0"; None when the text names no webcam."""
    path = text.removeprefix("v4l2://")
    if path.isascii() and path.isdigit():
        if path == text and Path(text).exists():  # a folder of the year 2024 is no camera
            return None
        return f"/dev/video{int(path)}"
    if path != text and not path:
        raise SourceError(f"{text} names no camera; write v4l2:///dev/video0")
    if path != text or re.fullmatch(r"/dev/(video\d+|v4l/.+)", path):
        return path
    return None
