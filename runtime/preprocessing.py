"""From a camera frame to the network's input: geometry here, arithmetic in the graph.

The graph takes uint8 BGR and holds mean, scale and channel order itself, so that no runtime can get them wrong.
What stays outside is geometry: a frame of any size is stretched or letterboxed to the graph's fixed size.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .opencv import load_cv2


@dataclass(frozen=True)
class Preprocessing:
    """network_input = (pixel - mean) * scale per channel, in the order the network was trained with.

    channel_order: "rgb" or "bgr"; mean, scale: three numbers each, in that order, for pixels of 0..255.
    """

    channel_order: str
    mean: tuple[float, float, float]
    scale: tuple[float, float, float]

    def apply(self, image: np.ndarray) -> np.ndarray:
        """(..., H, W, 3) uint8 BGR → the same shape, float32: the reference for what the graph does."""
        pixels = image[..., ::-1] if self.channel_order == "rgb" else image
        return (pixels.astype(np.float32) - np.asarray(self.mean, np.float32)) * np.asarray(self.scale, np.float32)


LETTERBOX_FILL = 127
"""Grey level of what a letterboxed frame leaves free; near the mean of every trunk here."""


def fit_frame(frame: np.ndarray, size: tuple[int, int], fit: str) -> tuple[np.ndarray, tuple[int, int]]:
    """Bring a frame (H, W, 3) uint8 to the network's `size` (height, width).

    fit: "stretch" or "letterbox". Returns the image and the (height, width) that the frame takes at its top left.
    """
    if frame.shape[:2] == size:
        return np.ascontiguousarray(frame), size
    if fit == "letterbox":
        content = letterbox_size((frame.shape[0], frame.shape[1]), size)
        return letterbox(frame, size, fill=LETTERBOX_FILL), content
    cv2 = load_cv2()
    return cv2.resize(np.ascontiguousarray(frame), size[::-1], interpolation=cv2.INTER_LINEAR), size


def letterbox_size(frame: tuple[int, int], target: tuple[int, int]) -> tuple[int, int]:
    """(height, width) that `frame` takes inside `target` with its aspect kept; it lies at the top left."""
    scale = min(target[0] / frame[0], target[1] / frame[1])
    return (
        min(target[0], max(1, round(frame[0] * scale))),
        min(target[1], max(1, round(frame[1] * scale))),
    )


def letterbox(image: np.ndarray, size: tuple[int, int], *, fill: int, nearest: bool = False) -> np.ndarray:
    """Fit `image` (H, W[, C]) uint8 into `size` (height, width), aspect kept, at the top left, the rest `fill`."""
    cv2 = load_cv2()
    height, width = letterbox_size((image.shape[0], image.shape[1]), size)
    interpolation = cv2.INTER_NEAREST_EXACT if nearest else cv2.INTER_LINEAR
    out = np.full((*size, *image.shape[2:]), fill, np.uint8)
    out[:height, :width] = cv2.resize(image, (width, height), interpolation=interpolation)
    return out
