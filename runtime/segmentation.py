"""What every way of segmenting shares: which frames are taken, and what comes back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .errors import UserError


@dataclass(frozen=True, eq=False)
class Segmentation:
    """One frame's result. mask: (H, W) uint8 class ids; the times of its stages in milliseconds.

    gpu_ms: what the GPU spent on each of its own stages, by name; None where no GPU path did them. overlay: the frame
    with its classes painted over it, (H, W, 3) uint8 BGR, where the GPU was asked for it.
    """

    mask: np.ndarray
    preprocess_ms: float
    infer_ms: float
    head_ms: float
    gpu_ms: Mapping[str, float] | None = None
    overlay: np.ndarray | None = None

    @property
    def total_ms(self) -> float:
        """Milliseconds of all stages together."""
        return self.preprocess_ms + self.infer_ms + self.head_ms


def check_frame(frame: Any) -> None:
    """Raise UserError unless `frame` is a NumPy array (H, W, 3) uint8 with at least one pixel."""
    if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        got = f"{frame.dtype} {frame.shape}" if isinstance(frame, np.ndarray) else type(frame).__name__
        raise UserError(f"a frame is a NumPy array (H, W, 3) uint8 in BGR order, got {got}.")
    if 0 in frame.shape:
        raise UserError(f"the frame is empty: its shape is {frame.shape}.")
