"""One picture file, decoded to BGR, or refused when it is damaged or its end is missing."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from fcnedge.runtime.errors import SourceError
from fcnedge.runtime.opencv import load_cv2
from fcnedge.runtime.picture_ends import missing_end

# fmt: off
PICTURE_SUFFIXES = frozenset({
    ".jpg", ".jpeg", ".jpe", ".jp2", ".png", ".bmp", ".dib", ".webp", ".avif", ".tif", ".tiff",
    ".pbm", ".pgm", ".ppm", ".pnm",
})
# fmt: on


def read_picture(path: Path) -> np.ndarray:
    """(H, W, 3) uint8 BGR. Grey and RGBA become BGR (alpha is dropped), 16 bit becomes 8, EXIF orientation is applied.

    Raises SourceError when the file is missing, empty, not a picture, truncated or damaged.
    """
    data = check_picture(path)
    cv2 = load_cv2()
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:  # more than 2^30 pixels, or a header that makes no sense
        raise SourceError(f"{path} cannot be decoded by OpenCV: {str(error.err).strip()}") from error
    if image is None:
        raise SourceError(f"{path} is damaged: it begins like a picture, but OpenCV cannot decode it")
    return image


def check_picture(path: Path) -> bytes:
    """The file's bytes. Raises SourceError when its first bytes are no picture's, or its end is missing."""
    check_not_empty(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}") from error
    missing = missing_end(data)
    if missing:
        raise SourceError(f"{path} is truncated: {missing}; copy it again")
    # bytes: a str that is not UTF-8 ends OpenCV 5.0, and Python with it, in a segmentation fault
    if not load_cv2().haveImageReader(os.fsencode(path)):
        raise SourceError(f"{path} is not a picture that OpenCV can read, whatever its name says")
    return data


def check_not_empty(path: Path) -> None:
    """Refuse a file that is missing, unreadable or has no bytes. Raises SourceError."""
    try:
        size = path.stat().st_size
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}") from error
    if path.is_file() and size == 0:
        raise SourceError(f"{path} is empty: it has 0 bytes")
