"""PASCAL VOC's colours and class names, and label pictures (PNG of class ids) that carry those colours."""

from __future__ import annotations

import functools
import struct
import zlib

import numpy as np

# fmt: off
VOC_CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)
# fmt: on

VOID = 255
"""The class id of pixels that VOC leaves out of every count: object borders and difficult objects."""


def voc_palette(classes: int = 256) -> np.ndarray:
    """(classes, 3) uint8 RGB: the colour of each class id, by VOC's bit-interleaving rule.

    Bits 0, 1, 2 of the id become the highest bits of red, green, blue, bits 3, 4, 5 the next highest, and so on: the
    function VOClabelcolormap of the VOC development kit (VOCcode/VOClabelcolormap.m), which coloured VOC's own masks.

    Raises ValueError when `classes` is not in 1..256.
    """
    if not 1 <= classes <= 256:
        raise ValueError(f"a palette holds 1 to 256 classes, not {classes}")
    return _voc_colours()[:classes].copy()


@functools.cache
def _voc_colours() -> np.ndarray:
    """All 256 of them, made once: every frame that is painted asks."""
    ids = np.arange(256)
    palette = np.zeros((256, 3), np.uint8)
    for level in range(8):
        for channel in range(3):
            bit = (ids >> (3 * level + channel)) & 1
            palette[:, channel] |= (bit << (7 - level)).astype(np.uint8)
    return palette


def full_palette(palette: np.ndarray) -> np.ndarray:
    """(256, 3) uint8 RGB: `palette` (n, 3) uint8 RGB with VOC's colours, void's pale yellow among them, after its end.

    Raises ValueError when `palette` has another shape or dtype.
    """
    check_palette(palette)
    full = voc_palette()
    full[: len(palette)] = palette
    return full


def check_palette(palette: np.ndarray) -> None:
    """Raise ValueError unless `palette` is (1..256, 3) uint8."""
    if palette.ndim != 2 or palette.shape[1] != 3 or not 1 <= len(palette) <= 256 or palette.dtype != np.uint8:
        raise ValueError(f"a palette is (1..256, 3) uint8 RGB, not {palette.shape} {palette.dtype}")


def encode_label_png(mask: np.ndarray, palette: np.ndarray) -> bytes:
    """A PNG whose pixels are class ids and whose palette shows them in colour, as VOC's SegmentationClass has them.

    mask: (H, W) uint8 class ids; palette: (n, 3) uint8 RGB. Pillow opens it in mode P, with the ids as pixels.
    cv2.imwrite has no palettes, hence these lines, after the PNG specification, sections 5 (chunks), 9 (filter type 0)
    and 11.2 (IHDR, PLTE, IDAT, IEND): https://www.w3.org/TR/png-3/

    Raises ValueError when the mask is empty or has another shape or dtype.
    """
    if mask.ndim != 2 or mask.dtype != np.uint8 or mask.size == 0:
        raise ValueError(f"a mask is (H, W) uint8 with at least one pixel, not {mask.shape} {mask.dtype}")
    height, width = mask.shape
    rows = np.zeros((height, width + 1), np.uint8)  # the first byte of each row is its filter type: 0, none
    rows[:, 1:] = mask
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)  # 8 bits a pixel, colour type 3: palette
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            _chunk(b"IHDR", header),
            _chunk(b"PLTE", full_palette(palette).tobytes()),
            _chunk(b"IDAT", zlib.compress(rows.tobytes(), 6)),
            _chunk(b"IEND", b""),
        )
    )


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
