"""What the GPU path needs of a network: addresses once, then one asynchronous call per frame."""

from __future__ import annotations

from typing import Protocol

import numpy as np


class DeviceNetwork(Protocol):
    """A network on the GPU, from the image at one address to scores or labels at another.

    precision: of the graph that runs, "fp32", "fp16" or "int8". output_dtype, output_shape: of its only output,
    (1, C, h, w) float32 or float16 scores, or (1, H, W) uint8 labels. Not thread-safe: whoever owns it takes turns.
    """

    precision: str
    output_dtype: np.dtype
    output_shape: tuple[int, ...]

    def bind(self, image_address: int, output_address: int, stream_handle: int) -> None:
        """Take the image (1, H, W, 3) uint8 BGR from one address of the GPU, put the output to another, on a stream.

        Called once, before the first frame, with the GPU's context current. stream_handle: CUstream as an integer.
        Raises BackendError when it cannot.
        """
        ...

    def enqueue(self) -> None:
        """Put one inference on the bound stream and return at once; allocates nothing. Raises BackendError."""
        ...

    def close(self) -> None:
        """Let go of the network's memory, with the GPU's context current; more than once does no harm."""
        ...
