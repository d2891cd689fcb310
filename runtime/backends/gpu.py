"""What the backends on NVIDIA GPUs share: a GPU, the frame path on it, and letting go of both."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..cuda.device import Device
from ..cuda.paint import Paint
from ..cuda.pipeline import FramePipeline
from ..segmentation import Segmentation


class GpuBackend:
    """A `FrameBackend` of one network, preprocessing and head included. Thread-safe: calls take turns.

    open_pipeline: makes the frame path on the GPU of this index; when it raises, the GPU is let go of.
    filter_mode: of BilinearHead, which the pipeline was opened with.
    """

    name: str
    precision: str

    def __init__(self, index: int, filter_mode: str, open_pipeline: Callable[[Device], FramePipeline]):
        self.filter_mode = filter_mode
        self._device = Device(index)
        try:
            self._pipeline = open_pipeline(self._device)
        except BaseException:
            self._device.close()
            raise

    def segment(self, frame: np.ndarray, *, out: np.ndarray | None = None, paint: Paint | None = None) -> Segmentation:
        """Frame (H, W, 3) uint8 BGR of any size → its mask at that size, as `FramePipeline.segment` has it."""
        return self._pipeline.segment(frame, out=out, paint=paint)

    def infer(self, image: np.ndarray) -> np.ndarray:
        """(1, H, W, 3) uint8 BGR → the network's only output. Raises BackendError when closed or when it fails."""
        return self._pipeline.infer(image)

    def close(self) -> None:
        """Free everything on the GPU, after the frame that runs; more than once does no harm."""
        self._pipeline.close()
        self._device.close()
