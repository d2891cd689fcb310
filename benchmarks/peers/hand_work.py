"""What a user writes by hand around a network that takes floats and gives scores: NumPy before it, NumPy behind it.

No peer is made slower than it need be: the resizing, the change of channel order and the last enlargement are OpenCV's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fcnedge.runtime.manifest import InputSpec
from fcnedge.runtime.opencv import load_cv2
from fcnedge.runtime.preprocessing import Preprocessing, fit_frame


@dataclass(frozen=True)
class HandWork:
    """Frame → network input, and scores → mask, for a network of that size with that arithmetic."""

    input: InputSpec
    preprocessing: Preprocessing

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the network."""
        return self.input.height, self.input.width

    def pixels(self, frame: np.ndarray) -> tuple[np.ndarray, tuple[int, int]]:
        """Bring a frame (H, W, 3) uint8 BGR to the network's size and channel order, still uint8 (h, w, 3).

        The second value is the (height, width) that the frame takes at the top left.
        """
        image, content = fit_frame(frame, self.size, self.input.fit)
        if self.preprocessing.channel_order == "rgb":
            cv2 = load_cv2()
            image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        return image, content

    def prepare(self, frame: np.ndarray) -> tuple[np.ndarray, tuple[int, int]]:
        """As `pixels`, normalised: (1, h, w, 3) float32."""
        image, content = self.pixels(frame)
        mean, scale = (np.asarray(value, np.float32) for value in (self.preprocessing.mean, self.preprocessing.scale))
        return ((image.astype(np.float32) - mean) * scale)[None], content

    def mask(self, scores: np.ndarray, frame: np.ndarray, content: tuple[int, int]) -> np.ndarray:
        """Scores (1, h, w, C) at the network's size → the best class of each pixel of the frame: (H, W) uint8.

        Argmax first and nearest neighbour after it, as tutorials do.
        """
        labels = scores[0].argmax(axis=-1).astype(np.uint8)
        return enlarge(labels, frame, content)


def enlarge(labels: np.ndarray, frame: np.ndarray, content: tuple[int, int]) -> np.ndarray:
    """Class ids (h, w) uint8, of which the frame takes `content` at the top left → (H, W) uint8, nearest neighbour."""
    cv2 = load_cv2()
    part = np.ascontiguousarray(labels[: content[0], : content[1]])
    return cv2.resize(part, (frame.shape[1], frame.shape[0]), interpolation=cv2.INTER_NEAREST)
