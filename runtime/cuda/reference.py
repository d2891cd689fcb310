"""What the kernels of kernels.cu have to give, in NumPy: pixel for pixel, for tests and for anyone who doubts.

The reference of `scores_to_labels` is `BilinearHead` (runtime/head.py), in both filter modes.
"""

from __future__ import annotations

import numpy as np

from ..preprocessing import LETTERBOX_FILL, letterbox_size

_WEIGHT_BITS = 11


def preprocess(frame: np.ndarray, size: tuple[int, int], fit: str) -> np.ndarray:
    """A frame (H, W, 3) uint8 BGR at the network's `size` (height, width): (1, height, width, 3) uint8 BGR.

    fit: "stretch" or "letterbox" (aspect kept, at the top left, the rest grey 127), the geometry of `fit_frame`.

    Bilinear with half-pixel centres, in the fixed-point arithmetic of OpenCV's `resize` with INTER_LINEAR on uint8
    (modules/imgproc/src/resize.cpp): positions in float32, weights of 11 bits rounded half to even, the sum over
    columns cut by 4 bits, each row's share by 16, the sum rounded by 2. At the border a pixel is weighted with itself.
    """
    content = letterbox_size((frame.shape[0], frame.shape[1]), size) if fit == "letterbox" else size
    upper_row, lower_row, row_weights = _taps(frame.shape[0], content[0])
    left, right, column_weights = _taps(frame.shape[1], content[1])
    pixels = frame.astype(np.int32)
    across = pixels[:, left] * column_weights[0][:, None] + pixels[:, right] * column_weights[1][:, None]
    upper = row_weights[0][:, None, None] * (across[upper_row] >> 4) >> 16
    lower = row_weights[1][:, None, None] * (across[lower_row] >> 4) >> 16
    out = np.full((1, *size, 3), LETTERBOX_FILL, np.uint8)
    out[0, : content[0], : content[1]] = upper + lower + 2 >> 2
    return out


def overlay(
    frame: np.ndarray, labels: np.ndarray, palette: np.ndarray, painted: np.ndarray, alpha: float
) -> np.ndarray:
    """The frame with class colours over it: `fma(frame, 1 - alpha, colour * alpha)` in float32, rounded half to even.

    frame: (H, W, 3) uint8 BGR, left as it is; labels: (H, W) uint8; palette: (256, 3) uint8 BGR; painted: (256,) uint8,
    0 for the class ids that keep the camera's pixels; alpha: 0 (frame only) to 1 (colour only).
    Returns (H, W, 3) uint8 BGR: what `runtime.overlay.blend` gives where OpenCV has fused multiply-adds. Where it has
    not, one grey level may differ at pixels whose sum lies within float32 rounding of a half.
    """
    colour = palette[labels].astype(np.float32) * np.float32(alpha)
    # float64 holds product and sum exactly (unless alpha is within 2**-20 of 0 or 1): to float32 is the one rounding.
    mixed = (frame.astype(np.float64) * np.float64(np.float32(1 - alpha)) + colour.astype(np.float64)).astype(
        np.float32
    )
    return np.where(painted[labels][..., None] != 0, np.rint(mixed).astype(np.uint8), frame)


def _taps(source: int, target: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two source pixels per target pixel, (target,) each, and their weights, (2, target) int32 of 0 to 2048."""
    scale = 1 / (target / source)  # as OpenCV rounds it
    place = ((np.arange(target) + 0.5) * scale - 0.5).astype(np.float32)
    below = np.floor(place)
    share = place - below
    weights = np.rint(np.stack([1 - share, share]) * np.float32(1 << _WEIGHT_BITS)).astype(np.int32)
    first = below.astype(np.intp)
    return np.clip(first, 0, source - 1), np.clip(first + 1, 0, source - 1), weights
