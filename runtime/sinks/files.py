"""Files that appear whole or not at all, and that never replace what the run reads."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from ..errors import UserError
from ..opencv import load_cv2

OUR_MARK = b"fcnedge"
"""At the beginning of each film and at the end of each picture that is written here: the next run may replace it."""

_BEGINNING = 1 << 14


def is_ours(path: Path) -> bool:
    """Whether fcnedge wrote the film or picture, as far as its ends tell; a run that was killed has marked it too."""
    try:
        with path.open("rb") as file:
            beginning = file.read(_BEGINNING)
            file.seek(-min(len(beginning), len(OUR_MARK)), os.SEEK_END)
            return OUR_MARK in beginning or file.read() == OUR_MARK
    except OSError:
        return False


def make_folder(folder: Path) -> None:
    """Make it and those above it. Raises UserError when that cannot be done."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"the folder {folder} cannot be made: {error.strerror}") from error


def write_atomically(path: Path, data: bytes) -> None:
    """Under another name first: whoever sees the final name sees a whole file. Raises UserError."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(data)
        part.replace(path)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from error
    finally:  # after Ctrl-C too
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def encode_picture(suffix: str, image: np.ndarray, jpeg_quality: int = 95) -> bytes:
    """A picture file of that ending. image: (H, W, 3) uint8 BGR; jpeg_quality: 0 to 100. Raises UserError."""
    cv2 = load_cv2()
    wishes = [cv2.IMWRITE_JPEG_QUALITY, jpeg_quality] if suffix.lower() in (".jpg", ".jpeg") else []
    ok, data = cv2.imencode(suffix.lower(), np.ascontiguousarray(image), wishes)
    if not ok:
        raise UserError(f"OpenCV cannot encode a picture of {image.shape[1]}x{image.shape[0]} as {suffix}")
    return data.tobytes()


def refuse_overwriting(path: Path, source_files: Iterable[Path]) -> None:
    """Raise UserError when `path`, under whatever name, is one of the files that the run reads."""
    if any(is_same_file(file, path) for file in source_files):
        raise UserError(f"{path} is the source itself, or one of its files; give the output another name")


def is_same_file(one: Path, other: Path) -> bool:
    """Whether both name one file or folder that is there."""
    try:
        return one.samefile(other)
    except OSError:  # one of them is not there
        return False
