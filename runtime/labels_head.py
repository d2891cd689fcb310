"""The head of a graph that gives labels itself: class ids at the network's size to a mask of the frame's size."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from .errors import BackendError

_KEPT_AXES = 8  # four (frame, content) geometries


class LabelsHead:
    """Nearest label: class ids have no values in between. Thread-safe, as BilinearHead is.

    classes: how many the bundle has; a graph that gives another id is refused.
    """

    def __init__(self, classes: int) -> None:
        self._classes = classes
        self._axis: Callable[[int, int], np.ndarray] = functools.lru_cache(_KEPT_AXES)(_nearest)

    def labels(self, output: np.ndarray, frame_size: tuple[int, int], content_size: tuple[int, int]) -> np.ndarray:
        """The mask of a frame, a new array (H, W) uint8.

        output: (1, h, w) uint8 class ids, of which the frame takes `content_size` (height, width) at the top left.
        frame_size: (H, W). Raises BackendError for an id past the classes.
        """
        if output.max() >= self._classes:
            raise BackendError(
                f"the graph gives class {output.max()}, model.json has {self._classes} classes; rebuild the bundle."
            )
        rows = self._axis(frame_size[0], content_size[0])
        columns = self._axis(frame_size[1], content_size[1])
        return output[0][rows[:, None], columns]


def _nearest(frame: int, content: int) -> np.ndarray:
    return np.minimum(((np.arange(frame) + 0.5) * content / frame).astype(np.intp), content - 1)
