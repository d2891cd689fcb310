"""A backend without a network, so that applications can be tested without model, runtime library or GPU."""

from __future__ import annotations

import numpy as np

from ..errors import BackendError
from ..manifest import Manifest


class FakeBackend:
    """Scores each grid cell by its colour: the class is `blue + 2·green + 4·red`, each channel bright or dark.

    Deterministic and visible (a red ball on black is class 4, background class 0), as fast as NumPy slicing.
    Thread-safe. manifest: of the bundle whose sizes and classes it stands in for.
    """

    name = "fake"
    precision = "fp32"

    def __init__(self, manifest: Manifest):
        self._classes = len(manifest.classes)
        self._stride = manifest.head.stride
        self._labels_head = manifest.head.kind == "labels"
        self._closed = False

    def infer(self, image: np.ndarray) -> np.ndarray:
        """(1, H, W, 3) uint8 → (1, C, H / stride, W / stride) float32 scores of 0 or 1, or (1, H, W) uint8 labels."""
        if self._closed:
            raise BackendError("the fake backend is closed; open another.")
        stride = 1 if self._labels_head else self._stride
        height, width = (side // stride * stride for side in image.shape[1:3])  # whole cells, as in a graph
        centres = image[0, stride // 2 : height : stride, stride // 2 : width : stride] > 127
        labels = (centres @ np.array([1, 2, 4], np.uint8)).astype(np.uint8) % self._classes
        if self._labels_head:
            return labels[None]
        return (labels == np.arange(self._classes, dtype=np.uint8)[:, None, None]).astype(np.float32)[None]

    def close(self) -> None:
        """Let go; `infer` raises from then on. More than once does no harm."""
        self._closed = True
