"""mIoU of a bundle's graphs on labelled pictures, at the pictures' own size, through the shipped runtime.

Q/DQ nodes are carried out as written (see precision/simulation.py): what is measured is the graph, and neither the
rounding of one CPU library's integer kernels nor the library that happens to be installed.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fcnedge.calibration.miou import ConfusionMatrix
from fcnedge.calibration.voc import VocSample
from fcnedge.runtime import Bundle, Segmenter
from fcnedge.runtime.command import Progress
from fcnedge.runtime.errors import BackendError, UserError

from .precision.simulation import open_simulated


@dataclass(frozen=True)
class Accuracy:
    """miou: share of 1 by graph (Form.title); drop_points: percentage points below fp32's.

    subset: classes that it is the mean over, None for all that occur. max_drop: the limit, None for none; exceptions:
    convolutions that INT8 had to leave in float to hold it, and chosen_on: the pictures, in words, that chose them.
    """

    split: str
    pictures: int
    subset: tuple[str, ...] | None
    miou: dict[str, float]
    drop_points: dict[str, float]
    max_drop: float | None
    exceptions: tuple[str, ...]
    chosen_on: str | None


def mean_iou(bundle: Bundle, graph: Path, samples: Sequence[VocSample], subset: Sequence[str] | None = None) -> float:
    """MIoU (share of 1) of one graph with the input, fit and head of `bundle`.

    subset: names of the classes to take the mean over, None for all that occur. A picture at a time; the graph is
    released at the end. Raises UserError for a picture or mask that cannot be read, a mask that does not fit, and masks
    without a pixel that counts.
    """
    matrix = ConfusionMatrix(len(bundle.manifest.classes))
    with contextlib.closing(Progress()) as progress, Segmenter(bundle, _Simulated(graph)) as segment:
        for index, sample in enumerate(samples):
            progress(f"mIoU of {graph.name}", index, len(samples))
            try:
                matrix.add(sample.read_mask(), segment(sample.read_image()))
            except ValueError as error:
                raise UserError(f"{sample.mask_path} does not fit its picture or the model: {error}.") from error
    miou = matrix.mean_iou(class_ids(subset, bundle.manifest.classes))
    if math.isnan(miou):
        raise UserError(
            f"no pixel of {len(samples)} masks counts, all are void or of other classes; choose another --split."
        )
    return miou


def class_ids(subset: Sequence[str] | None, classes: Sequence[str]) -> list[int] | None:
    """Positions of the names of `subset` in `classes`, which has them all; None for None."""
    return None if subset is None else [classes.index(name) for name in subset]


class _Simulated:
    """A backend that runs a graph as it is written."""

    name = "onnxruntime, Q/DQ as written"

    def __init__(self, graph: Path) -> None:
        self._session, self.precision = open_simulated(graph), graph.name.split(".")[1]

    def infer(self, image: np.ndarray) -> np.ndarray:
        """(1, H, W, 3) uint8 BGR → the graph's only output. Raises BackendError when it fails."""
        try:
            return self._session.run(None, {"image": image})[0]
        except Exception as error:  # onnxruntime's exception types are private
            raise BackendError(f"onnxruntime failed: {(str(error).splitlines() or ['?'])[0][:300]}") from error

    def close(self) -> None:
        """Nothing is held beyond this object."""
