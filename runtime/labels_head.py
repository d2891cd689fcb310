"""The head of a graph that gives labels itself: class ids at the network's size to a mask of the frame's size."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from .errors import BackendError
from .score_axis import nearest_points

_KEPT_AXES = 8  # four (frame, content) geometries


class LabelsHead:
    """Nearest label, whatever the filter mode: the graph has interpolated scores to the network's size already.

    Class ids have no values in between, so that a mode has nothing left to choose. A pixel takes the label under its
    centre, as `BilinearHead` with "point" does at a stride of 1. Thread-safe, as BilinearHead is.

    classes: how many the bundle has; a graph that gives another id is refused.
    """

    def __init__(self, classes: int) -> None:
        self._classes = classes
        self._nearest: Callable[[int, int, float, float, int], np.ndarray]
        self._nearest = functools.lru_cache(_KEPT_AXES)(nearest_points)

    def labels(self, output: np.ndarray, frame_size: tuple[int, int], content_size: tuple[int, int]) -> np.ndarray:
        """The mask of a frame, a new array (H, W) uint8.

        output: (1, h, w) uint8 class ids, of which the frame takes `content_size` (height, width) at the top left.
        frame_size: (H, W). Raises BackendError for an id past the classes.
        """
        if output.max() >= self._classes:
            raise BackendError(
                f"the graph gives class {output.max()}, model.json has {self._classes} classes; rebuild the bundle."
            )
        (height, width), (content_height, content_width) = frame_size, content_size
        rows = self._nearest(content_height, height, content_height, 0, 1)
        columns = self._nearest(content_width, width, content_width, 0, 1)
        return output[0][rows[:, None], columns]
