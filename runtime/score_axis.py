"""Where the rows or columns of a frame lie on the score grid, computed once per geometry."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_MAX_RUN_PX = 16  # wider cells are cut: bounds the padding of narrow cells and the memory of one step


@dataclass(frozen=True)
class ScoreAxis:
    """Rows or columns of a frame, cut into runs of neighbouring pixels that lie between the same two grid points.

    lower: (pixels,) grid point at or before each pixel.
    first, second: (runs,) the two grid points of a run, the same one in the half-cell outside the grid.
    pixel: (runs, longest run) frame pixels of a run. A shorter run repeats its last pixel, which is then written twice
        with the same label. Runs without a pixel do not exist.
    weight: (longest run, runs) weight of `second` at these pixels; any number where `first` is `second`.
    """

    lower: NDArray[np.intp]
    first: NDArray[np.intp]
    second: NDArray[np.intp]
    pixel: NDArray[np.intp]
    weight: NDArray[np.float64]


def score_axis(grid: int, frame: int, content: float, offset: float, stride: int) -> ScoreAxis:
    """`frame` pixels on a `grid` of points, `stride` network-input pixels apart: u(x) of BilinearHead.

    content: network-input pixels that the frame takes; offset: those of HeadGeometry along this axis.
    """
    pixels = np.arange(frame)
    u = ((pixels + 0.5) * content / frame + offset) / stride - 0.5
    cell = np.clip(np.floor(u), -1, grid - 1).astype(np.intp)
    lower = np.maximum(cell, 0)
    new_cell = np.diff(cell, prepend=-2) != 0
    since = pixels - np.maximum.accumulate(np.where(new_cell, pixels, 0))
    start = np.flatnonzero(since % _MAX_RUN_PX == 0)
    count = np.diff(start, append=frame)
    pixel = np.minimum(start[:, None] + np.arange(count.max()), (start + count - 1)[:, None])
    second = np.minimum(cell[start] + 1, grid - 1)
    table = ScoreAxis(lower, lower[start], second, pixel, np.ascontiguousarray((u - lower)[pixel].T))
    for array in (table.lower, table.first, table.second, table.pixel, table.weight):
        array.flags.writeable = False
    return table


def nearest_points(grid: int, frame: int, content: float, offset: float, stride: int) -> NDArray[np.intp]:
    """(frame,) grid point nearest to each pixel, the later one half-way: floor(u + 0.5) of BilinearHead, clipped.

    Exact for whole sides up to 2**14 and offsets in half pixels. A pixel lies half-way where its place in the network
    input is a multiple of 0.5, which float64 holds; any other is 2**-15 or more away from one, far beyond rounding.
    """
    places = (np.arange(frame) + 0.5) * content / frame + offset
    points = np.clip(np.floor(places / stride), 0, grid - 1).astype(np.intp)
    points.flags.writeable = False
    return points
