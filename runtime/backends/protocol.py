"""What a backend is: one call from a uint8 image to scores, and a way to let go."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np

from ..segmentation import Segmentation


class Backend(Protocol):
    """Runs one bundle's graph at its fixed size.

    name: as `--backend` spells it. precision: of the graph that runs, "fp32", "fp16" or "int8".
    """

    name: str
    precision: str

    def infer(self, image: np.ndarray) -> np.ndarray:
        """image (1, H, W, 3) uint8 BGR → scores (1, C, h, w) float32 or float16, or labels (1, H, W) uint8.

        Says in its class docstring whether several threads may call it at once.
        """
        ...

    def close(self) -> None:
        """Release memory and device; more than once does no harm."""
        ...


@runtime_checkable
class FrameBackend(Backend, Protocol):
    """A backend that does preprocessing and head as well, where its network runs: on the GPU.

    One whose head knows more than "linear" has an attribute `filter_mode`: what it was opened with.
    """

    def segment(self, frame: np.ndarray) -> Segmentation:
        """frame (H, W, 3) uint8 BGR of any size → its mask at that size, an array of the caller's own."""
        ...
