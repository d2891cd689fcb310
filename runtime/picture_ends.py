"""Whether the end of a picture is missing: OpenCV decodes half a JPEG without a word, grey below."""

from __future__ import annotations


def missing_end(data: bytes) -> str | None:
    """What the end of a picture file's bytes lacks, or None. Only formats whose end can be told by looking."""
    if data.startswith(b"\xff\xd8"):
        # Entropy-coded data holds no FFD9 (ITU-T T.81, B.1.1.5), but an Exif thumbnail before the scan does. What
        # follows the end is left alone: hardware encoders may fill their buffers up behind the picture.
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
