"""The output comes last: a camera, film or picture that was put there by mistake is named, not written to."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import urlsplit

from ..errors import UserError
from ..local_path import local_path
from ..sinks import PICTURE_SUFFIXES
from ..sinks.files import is_ours
from ..sources.address import hide_password

_ALWAYS_SOURCES = ("csi", "v4l2", "demo", "https", "rtsps")
_FILM, _PICTURE = "a film that is there", "a picture that is there"
_FILMS = (".mp4", ".avi", ".mkv", ".mov", ".m4v", ".webm", ".mpg", ".mpeg", ".ts", ".wmv", ".flv", ".gif")


def refuse_source_as_sink(sink: str, sources: int) -> None:
    """Raise UserError where `sink` is plainly a source. sources: how many stand before it.

    A film or picture that is there already is one, unless fcnedge wrote it: as the output of one source that is
    replaced.
    """
    what = _kind_of_source(sink, several=sources > 1)
    if what is None:
        return
    replaced = "; to replace it, delete it first" if what in (_FILM, _PICTURE) else ""
    raise UserError(
        f"{hide_password(sink)} is {what}, and the last word names the output; put the output after it: "
        f"null:// writes nothing{replaced}"
    )


def _kind_of_source(text: str, *, several: bool) -> str | None:
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", text)
    if scheme and scheme[1].lower() != "file":
        return _kind_of_address(text, scheme[1].lower())
    if " ! " in text:
        return "a GStreamer pipeline"
    path = local_path(text[scheme.end() :] if scheme else text)
    if os.path.exists(path):  # noqa: PTH110 - before Python 3.14 Path.exists raises where this says no
        return _kind_of_file(path, several=several)
    if text.isascii() and text.isdigit():
        return "a camera"
    if re.fullmatch(r"/dev/(video\d+|v4l/.+)", text):
        return "a camera"
    if any(character in path.name for character in "*?["):
        return "a pattern of pictures"
    return None


def _kind_of_address(text: str, scheme: str) -> str | None:
    if scheme in _ALWAYS_SOURCES:
        return "a demonstration" if scheme == "demo" else "a camera"
    if scheme != "http":
        return None
    try:
        parts = urlsplit(text)
        return "a camera" if parts.path.strip("/") or parts.query or parts.username else None
    except ValueError:  # whoever opens it says what is wrong
        return None


def _kind_of_file(path: Path, *, several: bool) -> str | None:
    if re.fullmatch(r"/dev/(video\d+|v4l/.+)", os.fspath(path)):
        return "a camera"
    suffix = path.suffix.lower()
    kind = _FILM if suffix in _FILMS else _PICTURE if suffix in PICTURE_SUFFIXES else None
    return kind if kind is not None and (several or not is_ours(path)) and _holds_something(path) else None


def _holds_something(path: Path) -> bool:
    # Not whether OpenCV can read it: a recording that lost its end may be mended yet.
    try:
        return path.is_file() and path.stat().st_size > 0
    except OSError:
        return False
