"""Mean intersection over union, from one int64 confusion matrix over all pictures.

IoU of class c = true positives / (true positives + false positives + false negatives), over all pixels of all pictures
that are not void: PASCAL VOC's measure (Everingham et al., "The PASCAL Visual Object Classes Challenge", IJCV 2010).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .voc import VOID

MIOU_7 = ("background", "cat", "cow", "dog", "horse", "person", "sheep")
"""The subset mean that VOC models are compared by where no other is asked for."""


def usual_subset(classes: Sequence[str]) -> tuple[str, ...]:
    """MIOU_7 of a model that has these classes, else all that it has."""
    return MIOU_7 if set(MIOU_7) <= set(classes) else tuple(classes)


class ConfusionMatrix:
    """Counts of pixels by (true class, predicted class); counts[i, j] int64, void left out."""

    def __init__(self, classes: int):
        self.counts = np.zeros((classes, classes), np.int64)

    def add(self, truth: np.ndarray, predicted: np.ndarray) -> None:
        """Count one picture. truth: (H, W) uint8 ids, 255 void; predicted: (H, W) uint8 ids.

        Raises ValueError for other shapes and for ids that are neither a class nor void.
        """
        classes = len(self.counts)
        if truth.shape != predicted.shape:
            raise ValueError(f"truth is {truth.shape} and prediction {predicted.shape}; they must agree")
        counted = truth != VOID
        true_ids, predicted_ids = truth[counted].astype(np.int64), predicted[counted].astype(np.int64)
        if true_ids.size and max(true_ids.max(), predicted_ids.max()) >= classes:
            raise ValueError(f"ids up to {max(true_ids.max(), predicted_ids.max())} for {classes} classes")
        self.counts += np.bincount(true_ids * classes + predicted_ids, minlength=classes * classes).reshape(
            classes, classes
        )

    def iou(self) -> np.ndarray:
        """(classes,) float64; NaN for a class that no picture holds."""
        hits = np.diag(self.counts).astype(np.float64)
        union = self.counts.sum(0) + self.counts.sum(1) - hits
        present = self.counts.sum(1) > 0
        return np.divide(hits, union, out=np.full(len(hits), np.nan), where=present)

    def mean_iou(self, classes: Sequence[int] | None = None) -> float:
        """Mean IoU over `classes`, or over all that occur; NaN when none of them does."""
        values = self.iou() if classes is None else self.iou()[list(classes)]
        values = values[~np.isnan(values)]
        return float(values.mean()) if values.size else float("nan")

    def pixel_accuracy(self) -> float:
        """Share of counted pixels with the right class."""
        total = self.counts.sum()
        return float(np.trace(self.counts) / total) if total else float("nan")
