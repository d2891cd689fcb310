"""One picture file, decoded to BGR, or refused: OpenCV decodes half a JPEG without a word, so the end is looked at."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from fcnedge.runtime.errors import SourceError
from fcnedge.runtime.opencv import load_cv2

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
    missing = _missing_end(data)
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


def _missing_end(data: bytes) -> str | None:
    """What the end of the file lacks, or None. Only formats whose end can be told by looking."""
    if data.startswith(b"\xff\xd8"):
        # Entropy-coded data holds no FFD9 (ITU-T T.81, B.1.1.5), but an Exif thumbnail before the scan does.
        scan = data.find(b"\xff\xda", _jpeg_tables_start(data))
        return None if scan >= 0 and data.find(b"\xff\xd9", scan) >= 0 else "it lacks JPEG's end-of-image marker"
    if data.startswith(b"\x89PNG"):
        return None if b"IEND\xaeB`\x82" in data else "it lacks PNG's IEND chunk"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP" and len(data) < int.from_bytes(data[4:8], "little") + 8:
        return "it is shorter than its RIFF header says"
    if data.startswith(b"BM") and len(data) < int.from_bytes(data[2:6], "little"):
        return "it is shorter than its BMP header says"
    return None


def _jpeg_tables_start(data: bytes) -> int:
    """Offset after the application segments (FFE0..FFEF, Exif with its thumbnail among them) and comments."""
    offset = 2
    while data[offset : offset + 1] == b"\xff" and len(data) >= offset + 4:
        marker = data[offset + 1]
        if not (0xE0 <= marker <= 0xEF or marker == 0xFE):
            break
        offset += 2 + int.from_bytes(data[offset + 2 : offset + 4], "big")
    return offset
