"""From the name of an output to the sink that writes it."""

from __future__ import annotations

import os
import re
from urllib.parse import SplitResult, urlsplit

import numpy as np

from ..errors import UserError
from ..local_path import local_path
from ..palette import voc_palette
from ..sources import Source
from ..sources.address import hide_password
from .display import DisplaySink
from .files import is_same_file, refuse_overwriting
from .folder import FolderSink
from .network import NetworkSink
from .null import NullSink
from .picture import PICTURE_SUFFIXES, PictureSink
from .sink import Sink
from .video import VIDEO_CODECS, VideoSink

_FPS_UNKNOWN = 25.0


def open_sink(
    uri: str | os.PathLike[str] | None,
    *,
    source: Source | None = None,
    fps: float | None = None,
    palette: np.ndarray | None = None,
    visualize: tuple[str, ...] | None = None,
    title: str | None = None,
) -> Sink:
    """Open what the URI names.

    uri: None or `null://` (nothing is written); a folder ("out", "out/": masks/NAME.png with class ids and palette as
    VOC has them, overlays/NAME.jpg); a picture file, for the overlay of one picture; a video file (.mp4, .avi), for
    the overlays; `file://` and any of these; `display://0`, a window; `rtp://HOST:PORT` and `rtsp://HOST:PORT/PATH`,
    an H.264 stream. source: where the frames come from; gives the frame rate, and a sink that cannot hold it, or would
    overwrite its files, is refused at once. fps: frame rate of a film or stream, the source's (or 25) when None.
    palette: (n, 3) uint8 RGB for masks, VOC's when None. visualize: "overlay", "mask" or both; None is what the sink
    does by itself, both for a folder and the overlay for all else. title: of a window, the source's URI when None.

    Raises UserError, in one sentence, for what is unknown, does not fit the source or cannot be written.
    """
    if uri is None or uri == "null://":
        return NullSink("null://")
    text = os.fspath(uri)
    scheme, separator, name = text.partition("://")
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*", scheme) or not separator:
        scheme, name = "file", text
    fps = fps or (source.fps if source else None) or _FPS_UNKNOWN
    shows = visualize or ("overlay",)
    match scheme.lower():
        case "file":
            return _open_path(text, name, source, fps, palette, visualize)
        case "display":
            return _open_window(text, name, source, shows, title)
        case "rtp" | "rtsp":
            return NetworkSink(_network_address(text), fps, shows, live=source is None or source.live)
        case "http":
            raise UserError(f"{text} would be a live page, which only fcn-run and PageSink make; here it is {_HERE}")
        case other:
            raise UserError(f"this version does not write to {other}://; it writes {_SUPPORTED}")


_HERE = (
    f"a folder (end it with /), a picture ({', '.join(PICTURE_SUFFIXES)}), a video (.mp4, .avi), display://0, "
    "rtp://HOST:PORT, rtsp://HOST:PORT/PATH and null://"
)
_SUPPORTED = f"{_HERE}, and through fcn-run or PageSink http://127.0.0.1:8080, a live page"


def _open_path(
    text: str,
    name: str,
    source: Source | None,
    fps: float,
    palette: np.ndarray | None,
    visualize: tuple[str, ...] | None,
) -> Sink:
    if not name:
        raise UserError(f"no output was given; fcnedge writes {_SUPPORTED}")
    path = local_path(name)
    suffix = path.suffix.lower()
    files = source.files if source is not None else ()
    # Before Python 3.14 Path.is_dir raises where os.path.isdir says no; what is wrong shows on writing.
    if os.path.isdir(path) or name.endswith(("/", os.sep)) or not suffix:  # noqa: PTH112
        if source is not None and source.folder is not None and is_same_file(source.folder, path):
            raise UserError(f"{text} is the source itself; write into a folder of its own, such as {path / 'out'}")
        colours = voc_palette() if palette is None else palette
        return FolderSink(text, path, colours, files, visualize or ("mask", "overlay"))
    if suffix in VIDEO_CODECS:
        refuse_overwriting(path, files)
        if source is not None and source.mixed_sizes:
            raise UserError(f"{text} would have one size, but the pictures of {source.uri} have several; name a folder")
        return VideoSink(text, path, fps, visualize or ("overlay",))
    if suffix in PICTURE_SUFFIXES:
        refuse_overwriting(path, files)
        if source is not None and source.length != 1:
            raise UserError(f"{text} holds one picture, but {source.uri} gives more; name a folder or a .mp4 file")
        return PictureSink(text, path, visualize or ("overlay",))
    raise UserError(f"{text} has an ending that cannot be written; fcnedge writes {_SUPPORTED}")


def _open_window(text: str, name: str, source: Source | None, shows: tuple[str, ...], title: str | None) -> Sink:
    if name.strip("/") not in ("", "0"):
        raise UserError(
            f"{text} is no display; write display://0, and DISPLAY=:1 before the command for another screen"
        )
    stays = source is not None and not source.live and not source.is_video
    return DisplaySink(text, title or (source.uri if source is not None else "fcnedge"), shows, stays=stays)


def _network_address(text: str) -> SplitResult:
    try:
        address = urlsplit(text)
        needs_port = address.scheme == "rtp"
        if address.hostname and (address.port or not needs_port) and not re.search(r"\s", text):
            return address
    except ValueError:  # a port that is no number
        pass
    raise UserError(
        f"{hide_password(text)} cannot be streamed to; write rtp://HOST:PORT or rtsp://HOST:PORT/PATH, and a / @ or : "
        "within user or password as %2F, %40 or %3A"
    )
