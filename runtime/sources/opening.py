"""From what the user typed (a path, a pattern, a camera, a URI) to the source that reads it.

A new kind of source is one more file beside this one and one more entry in `_SCHEMES` or `_LIVE_SCHEMES`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from os import PathLike, fspath
from pathlib import Path
from urllib.parse import unquote

from fcnedge.runtime.errors import SourceError
from fcnedge.runtime.opencv import load_cv2

from ..local_path import local_path
from .address import hide_password
from .altered import altered
from .demonstration import open_demo
from .frame import Source
from .gstreamer_source import open_csi, open_user_pipeline
from .input_options import InputOptions
from .listing import NUMBERED, folder_pictures, glob_pictures, numbered_pictures
from .picture_file import PICTURE_SUFFIXES, check_not_empty
from .pictures import PictureSource
from .rtsp import RtspSource
from .video_file import VideoFileSource
from .webcam import WebcamSource

SUPPORTED = (
    "pictures, folders, globs, numbered pictures (image_%04d.jpg), video files, webcams (0, /dev/video0, "
    "v4l2:///dev/video0), csi://0, rtsp://, http:// (MJPEG), GStreamer pipelines and demo://"
)


def open_source(uri: str | PathLike[str], options: InputOptions | None = None) -> Source:
    """Open what the URI names.

    uri: a picture, a folder of pictures, a glob ("shots/*.jpg", "**" too), numbered pictures ("image_%04d.jpg"), a
    video file, `file://` and any of these; a webcam ("0", "/dev/video0", "v4l2:///dev/video0"), a Jetson's CSI camera
    ("csi://0"), a network camera (`rtsp://`, `rtsps://`, `http://` and `https://` for MJPEG), a GStreamer pipeline
    ("videotestsrc ! videoconvert"); `demo://` (photographs), `demo://clip` (a short film) or `demo://camera` (the film
    in real time). A file or folder called "0" comes before the webcam of that number.
    options: what to ask of it. A size or rate can be asked of webcams and CSI cameras, and is refused for others.

    The source's `uri` has *** for each password. A network camera is not connected before it is iterated, and is lost
    only then; anything else that is missing is refused here.
    Raises SourceError, in one sentence, for what is missing, empty, damaged, of an unknown kind or not supported.
    """
    text = fspath(uri)
    options = options or InputOptions()
    try:
        device = _webcam_device(text)
        if device is not None:
            return altered(WebcamSource(text, device, options), options)
        scheme = _scheme(text)
        if options.camera_wishes and scheme != "csi":
            raise SourceError(
                f"{hide_password(text)} cannot be asked for a size or frame rate, only a webcam or CSI camera can; "
                "leave them out"
            )
        if scheme in _LIVE_SCHEMES:
            return altered(_LIVE_SCHEMES[scheme](text, options), options, flipped=scheme == "csi")
        return altered(_open_recorded(text, scheme, options), options)
    except OSError as error:  # to ask whether a path exists may be forbidden, or its name too long to ask
        raise SourceError(f"{hide_password(text)} cannot be read: {error.strerror}") from error


def _scheme(text: str) -> str | None:
    found = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", text)
    return found[1].lower() if found else None


def _open_mjpeg(text: str, options: InputOptions) -> Source:
    from .mjpeg import MjpegSource  # HTTP and TLS take a device longer to load than all else here

    return MjpegSource(text, options)


_LIVE_SCHEMES: dict[str, Callable[[str, InputOptions], Source]] = {
    "csi": open_csi,
    "rtsp": RtspSource,
    "rtsps": RtspSource,
    "http": _open_mjpeg,
    "https": _open_mjpeg,
}


def _open_recorded(text: str, scheme: str | None, options: InputOptions) -> Source:
    if scheme is None:
        return _open_path(text, text, options)
    opener = _SCHEMES.get(scheme)
    if opener is None:  # the rest of the address is not repeated: it may hold a password
        raise SourceError(f"this version does not read {scheme}:// sources; it reads {SUPPORTED}")
    return opener(text, options)


def _open_file_uri(uri: str, options: InputOptions) -> Source:
    raw = uri[len("file://") :].removeprefix("localhost")
    # RFC 8089 has percent-encoding, but a path may also be typed as it is, with a % of its own.
    literal = Path(raw).exists() or NUMBERED.search(Path(raw).name)
    return _open_path(uri, raw if literal else unquote(raw), options)


_SCHEMES: dict[str, Callable[[str, InputOptions], Source]] = {
    "file": _open_file_uri,
    "demo": lambda uri, _: open_demo(uri),
}


def _open_path(uri: str, text: str, options: InputOptions) -> Source:
    if not text:
        raise SourceError(f"no source was given; fcnedge reads {SUPPORTED}")
    path, folder = local_path(text), None
    if path.is_dir():
        files, skipped = folder_pictures(path)
        folder = path
    elif path.exists():
        _refuse_devices(path)
        if not _is_picture(path):
            return VideoFileSource(uri, path)
        files, skipped = [path], 0
    elif " ! " in text:  # before patterns: a pipeline may hold %d and brackets of its own
        return open_user_pipeline(text, options)
    elif NUMBERED.search(path.name):
        files, skipped = numbered_pictures(path), 0
    elif any(character in text for character in "*?["):
        files, skipped = glob_pictures(path)
    else:
        raise SourceError(f"{text} does not exist")
    return PictureSource(uri, files, skipped=skipped, folder=folder)


def _refuse_devices(path: Path) -> None:
    """A pipe would be waited for, and its beginning lost to the look at what it holds."""
    if path.is_char_device():
        raise SourceError(f"{path} is a device and no file; if it is a camera, write v4l2://{path}")
    if not path.is_file():
        raise SourceError(f"{path} is neither a file nor a folder; write what comes from a pipe into a file first")


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
