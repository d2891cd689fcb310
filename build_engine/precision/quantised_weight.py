"""A convolution's weight in INT8: symmetric, one scale per output channel.

    scale[c] = max |w[c]| / 127        q[c] = clip(round_half_even(w[c] / scale[c]), -127, 127)

-128 is not used, as TensorRT does not use it either: symmetric means that -w quantises to -q.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from fcnedge.runtime.errors import UserError

from .float32_layers import FLOAT16_MAX

LARGEST = 127
_SMALLEST_FLOAT32 = 2.0**-126


@dataclass(frozen=True)
class QuantisedWeight:
    """integers: int8, shape of the weight; scales: (C,) float32, each above zero; sqnr_db: signal to rounding noise."""

    integers: np.ndarray
    scales: np.ndarray
    sqnr_db: float


def quantise_weight(weight: np.ndarray, name: str, *, half_scales: bool) -> QuantisedWeight:
    """Round a convolution's kernel (C, …) to INT8.

    half_scales: the scales will be stored as float16, so they are rounded to it first (see `stored_scale`).
    Raises UserError, naming `name`, when a weight is NaN or infinite.
    """
    exact = weight.astype(np.float64)
    largest = np.abs(exact).max(axis=tuple(range(1, exact.ndim)))
    if not np.isfinite(largest).all():
        channel = int(np.flatnonzero(~np.isfinite(largest))[0])
        raise UserError(
            f"the weight {name} has NaN or infinity in output channel {channel}, where finite numbers are needed; "
            f"train or convert the model again."
        )
    # Any scale will do for a channel of zeros.
    scales = stored_scale(np.where(largest > 0, largest / LARGEST, 1.0), half=half_scales)
    along_channels = scales.astype(np.float64).reshape(-1, *[1] * (exact.ndim - 1))
    integers = np.clip(np.rint(exact / along_channels), -LARGEST, LARGEST)
    noise = float(np.square(integers * along_channels - exact).sum())
    signal = float(np.square(exact).sum())
    sqnr_db = 10 * math.log10(signal / noise) if noise > 0 and signal > 0 else math.inf
    return QuantisedWeight(integers.astype(np.int8), scales, sqnr_db)


def stored_scale(scales: np.ndarray, *, half: bool) -> np.ndarray:
    """`scales` (float64, above zero) as the graph will hold them: rounded to float32, or *up* to float16.

    Up, because float16 has 11 bits, and fewer below 2^-14: rounded down, up to half of the range would be clipped.
    What float16 cannot hold keeps float32; the layer that it scales does not fit float16 either.
    """
    single = np.maximum(scales, _SMALLEST_FLOAT32).astype(np.float32)
    if not half:
        return single
    nearest = np.minimum(scales, FLOAT16_MAX).astype(np.float16)
    up = np.nextafter(nearest, np.float16(FLOAT16_MAX))
    rounded = np.where(nearest.astype(np.float64) < scales, up, nearest).astype(np.float32)
    return np.where(scales > FLOAT16_MAX, single, rounded)
