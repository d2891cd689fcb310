"""The `meta` of a MatConvNet network: names of its classes and the mean of its pictures."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

_LOG = logging.getLogger(__name__)
_MEANS = ("averageImage", "rgbMean")
_UNEVEN = 1e-3
"""An average image whose pixels differ by more than this grey level from their mean is told about."""


def class_names(meta: Any) -> tuple[str, ...] | None:
    """`meta.classes.description`, `.name` or `meta.classes` itself; None where they are not one name per class."""
    classes = meta.get("classes") if isinstance(meta, dict) else None
    held = [classes.get("description"), classes.get("name")] if isinstance(classes, dict) else [classes]
    for names in held:
        if isinstance(names, list) and len(names) >= 2 and all(isinstance(name, str) and name for name in names):
            cleaned = tuple(name.strip() for name in names)
            if len(set(cleaned)) == len(cleaned) and all(name.isprintable() and name for name in cleaned):
                return cleaned
    return None


def mean_rgb(meta: Any) -> tuple[float, float, float] | None:
    """`meta.normalization.averageImage` (or `rgbMean`) as R, G, B in 0..255; None where the file has none.

    An average image per pixel becomes its mean per channel, as our graphs subtract one colour.
    """
    normalization = meta.get("normalization") if isinstance(meta, dict) else None
    if not isinstance(normalization, dict):
        return None
    for name in _MEANS:
        mean = _per_channel(normalization.get(name))
        if mean is not None:
            red, green, blue = mean.tolist()
            return red, green, blue
    return None


def _per_channel(value: Any) -> np.ndarray | None:
    """(3,) float64 from (H, W, 3), (1, 1, 3), (3, 1), (1, 3); None for anything else."""
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiu" or not np.isfinite(value).all():
        return None
    if value.size == 3:
        return value.reshape(3).astype(np.float64)
    if value.ndim != 3 or value.shape[2] != 3 or value.size == 0:
        return None
    mean = value.mean(axis=(0, 1), dtype=np.float64)
    unevenness = float(np.abs(value - mean).max())
    if unevenness > _UNEVEN:
        _LOG.info(
            "the file's average image differs from pixel to pixel, by up to %.1f from the colour that is subtracted.",
            unevenness,
        )
    return mean
