"""Exact sparse head: class scores on the coarse grid to a mask of class ids at any frame size, no (C, H, W) tensor."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .errors import UserError
from .score_axis import ScoreAxis, nearest_points, score_axis

_MAX_STEP_PX = 1 << 16  # frame pixels interpolated at a time: three float64 buffers of 512 KiB stay in a level-2 cache
_KEPT_AXES = 8  # four (h, w, H, W, content) geometries

FILTER_MODES = ("linear", "point")
"""From scores to a mask of the frame's size: interpolated, or each pixel with the class of the nearest grid point."""


@dataclass(frozen=True)
class HeadGeometry:
    """Where the score grid lies in the network input.

    stride: network-input pixels between neighbouring grid points (FCN-32s: 32, FCN-16s: 16, FCN-8s: 8).
    offset: (rows, columns), network-input pixels; `crop_before - stride / 2` of the crop after the last deconvolution:
        0 for the symmetric crop, `-stride / 2` where a port crops only bottom and right.
    """

    stride: int
    offset: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        if self.stride < 1:
            raise ValueError(f"stride is {self.stride}; expected 1 or more network-input pixels per grid point")
        if not np.isfinite(self.offset).all():
            raise ValueError(f"offset is {self.offset}; expected two finite numbers of network-input pixels")


class BilinearHead:
    """Last bilinear deconvolution, crop and argmax in one step, evaluated only where neighbouring labels differ.

    Frame column x has the grid coordinate

        u(x) = ((x + 0.5) * content_width / frame_width + offset) / stride - 0.5, clipped to [0, w - 1],

    rows alike. The score of a class at a pixel is the bilinear interpolation of the four grid scores around it, the
    label is the class with the highest score, the lowest class id where several share it. At a frame of
    (h * stride, w * stride) this is argmax over the bilinear deconvolution with kernel `2 * stride` and zero bias,
    border included: there the deconvolution is the interpolation times a positive factor, the same for all classes.

    Why it is exact. The four interpolation weights of a pixel are not negative and sum to 1, so any inequality between
    two classes that holds at all four corners of a cell, strict or not, holds in the whole cell.

    1. Uniform cells. Class a has the label of all corners: s_a > s_c for every c < a (else c would have won the tie)
       and s_a >= s_c for every c > a. Both carry over to each pixel, so its label is a. No interpolation needed.
    2. Dropped classes. Let m be the largest over classes of the smallest corner score, reached by class b. A class c
       whose largest corner score is below m has s_c <= max(s_c) < m <= s_b at each pixel: it can neither win nor tie.
       The comparison is strict because a class that only reaches m may tie and have the lower id.
    3. Mixed cells, typically a tenth, interpolate what is left, two to four classes, as float64 differences to the
       lowest class left. Where the weights are dyadic (stride a power of two up to 32, frame as large as the content),
       products and sums are exact, and so are ties, as long as the scores of a cell that are not zero lie within a
       factor of 2**15. Elsewhere a label may differ from real arithmetic where two classes lie within float64 rounding.

    filter_mode: "linear" is all of that. "point" interpolates nothing: a pixel has the class of the grid point nearest
    to it, floor(u(x) + 0.5), clipped to the grid. One half-way between two points takes the later, the lower row or the
    right column; where classes tie at the point, the lowest id wins. Blocky and cheaper: what segnet calls so.
    Thread-safe: a head holds nothing but a small cache of geometry tables, which are written once and locked.
    Raises UserError for another filter mode.
    """

    def __init__(self, geometry: HeadGeometry, filter_mode: str = "linear") -> None:
        check_filter_mode(filter_mode)
        self.geometry = geometry
        self._point = filter_mode == "point"
        self._nearest: Callable[[int, int, float, float, int], NDArray[np.intp]]
        self._nearest = functools.lru_cache(_KEPT_AXES)(nearest_points)
        self._axis: Callable[[int, int, float, float, int], ScoreAxis] = functools.lru_cache(_KEPT_AXES)(score_axis)

    def labels(
        self,
        scores: NDArray[np.floating],
        frame_size: tuple[int, int],
        content_size: tuple[float, float] | None = None,
        out: NDArray[np.uint8] | None = None,
    ) -> NDArray[np.uint8]:
        """The mask of a frame from the network's scores.

        scores: (C, h, w) or (1, C, h, w) float32 or float16, finite, any memory layout, C from 1 to 255.
        frame_size: (H, W) of the mask, pixels.
        content_size: (height, width) in network-input pixels that the frame takes at the top left of the network
            input (letterbox); None: all of it, (h * stride, w * stride).
        out: (H, W) uint8 array to write into and return; None: a new one.

        Returns (H, W) uint8 class ids. Raises `UserError` for scores that this head cannot read (dimensions, dtype,
        number of classes, NaN or infinity) and `ValueError` for sizes that no frame has.
        """
        grid = _checked_scores(scores)
        _, h, w = grid.shape
        stride, offset = self.geometry.stride, self.geometry.offset
        height, width = (h * stride, w * stride) if content_size is None else content_size
        mask = _checked_out(frame_size, (height, width), out)
        vertical, horizontal = (
            (h, frame_size[0], height, offset[0], stride),
            (w, frame_size[1], width, offset[1], stride),
        )
        grid_labels = _argmax(grid)
        if self._point:
            across = grid_labels.take(self._nearest(*horizontal), axis=1)
            np.take(across, self._nearest(*vertical), axis=0, out=mask, mode="clip")
        else:
            rows, columns = self._axis(*vertical), self._axis(*horizontal)
            np.take(grid_labels.take(columns.lower, axis=1), rows.lower, axis=0, out=mask, mode="clip")
            _settle_mixed(grid, grid_labels, rows, columns, mask)
        if out is None or mask is out:
            return mask
        out[...] = mask
        return out


def check_filter_mode(filter_mode: str) -> None:
    """Raise UserError for a filter mode that there is not."""
    if filter_mode not in FILTER_MODES:
        raise UserError(f"filter_mode is {filter_mode!r}; it must be {' or '.join(map(repr, FILTER_MODES))}.")


def _argmax(grid: NDArray[np.float32]) -> NDArray[np.uint8]:
    """(C, h, w) to (h, w) labels, several times faster than `argmax(axis=0)`, which walks across the memory layout."""
    classes = len(grid)
    falling = np.arange(classes, 0, -1, dtype=np.uint8)[:, None, None]
    marks = (grid == grid.max(axis=0)).view(np.uint8)
    marks *= falling  # the lowest class that reaches the maximum has the highest mark
    return np.uint8(classes) - marks.max(axis=0)


def _settle_mixed(
    grid: NDArray[np.float32],
    grid_labels: NDArray[np.uint8],
    rows: ScoreAxis,
    columns: ScoreAxis,
    mask: NDArray[np.uint8],
) -> None:
    """Overwrite the cells of `mask` (C-contiguous) whose corners disagree."""
    left = grid_labels.take(columns.first, axis=1)
    differ = left != grid_labels.take(columns.second, axis=1)
    mixed = left.take(rows.first, axis=0) != left.take(rows.second, axis=0)
    mixed |= differ.take(rows.first, axis=0)
    mixed |= differ.take(rows.second, axis=0)
    cells = np.flatnonzero(mixed)
    flat_grid, flat_mask = grid.reshape(len(grid), -1), mask.reshape(-1)
    step = max(1, _MAX_STEP_PX // (len(rows.weight) * len(columns.weight)))
    for begin in range(0, len(cells), step):
        row, column = np.divmod(cells[begin : begin + step], len(columns.first))
        corners = _corner_points(rows, columns, row, column, grid.shape[2])
        order, levels = _surviving_classes(flat_grid.take(corners, axis=1))
        row, column = row[order], column[order]
        weights = rows.weight.take(row, axis=1), columns.weight.take(column, axis=1)
        labels = _interpolated_labels(flat_grid, corners.take(order, axis=1), levels, *weights)
        pixel = (rows.pixel.take(row, axis=0) * mask.shape[1])[:, :, None] + columns.pixel.take(column, axis=0)[:, None]
        flat_mask[pixel] = np.ascontiguousarray(labels.transpose(2, 0, 1))  # cell by cell: half the cache misses


def _corner_points(
    rows: ScoreAxis, columns: ScoreAxis, row: NDArray[np.intp], column: NDArray[np.intp], width: int
) -> NDArray[np.intp]:
    """(4, cells) flat grid points of cells: top left, top right, bottom left, bottom right."""
    corners = np.empty((2, 2, len(row)), np.intp)
    corners[0] = rows.first[row]
    corners[1] = rows.second[row]
    corners *= width
    corners[:, 0] += columns.first[column]
    corners[:, 1] += columns.second[column]
    return corners.reshape(4, -1)


def _surviving_classes(scores: NDArray[np.float32]) -> tuple[NDArray[np.intp], list[NDArray[np.intp]]]:
    """Drop the classes that can win nowhere in a cell; scores: (C, 4, cells), `cells` of them mixed.

    Returns the order that sorts the cells by the number of classes left, most first, and for k = 0, 1, ... the k-th
    class left, ids ascending, of those cells, in that order, that have one. They are always a prefix: a slice does
    what groups of cells with equally many classes would do.
    """
    alive = scores.max(axis=1) >= scores.min(axis=1).max(axis=0)
    count = np.add.reduce(alive, axis=0, dtype=np.uint8)
    order = np.argsort(np.uint8(255) - count, kind="stable")
    count = count[order]
    ids = np.flatnonzero(alive.T.take(order, axis=0)) % len(scores)
    begin = np.cumsum(count, dtype=np.intp) - count
    return order, [ids[begin[: np.count_nonzero(count > k)] + k] for k in range(count[0])]


def _interpolated_labels(
    flat_grid: NDArray[np.float32],
    corners: NDArray[np.intp],
    levels: list[NDArray[np.intp]],
    row_weight: NDArray[np.float64],
    column_weight: NDArray[np.float64],
) -> NDArray[np.uint8]:
    """(rows, columns, cells) labels. Cells are the last axis: NumPy's inner loops are then hundreds of cells long."""
    lowest = levels[0]
    points = flat_grid.shape[1]
    base = flat_grid.take(lowest * points + corners).astype(np.float64)
    labels = np.empty((len(row_weight), len(column_weight), len(lowest)), np.uint8)
    labels[...] = lowest
    best = np.zeros((1, 1, len(lowest)))
    for ids, n_next in zip(levels[1:], [*map(len, levels[2:]), 0], strict=True):
        n = len(ids)
        difference = flat_grid.take(ids * points + corners[:, :n]) - base[:, :n]
        left, right = difference[:2, None] + row_weight[:, :n] * (difference[2:] - difference[:2])[:, None]
        lead = (right - left)[:, None] * column_weight[:, :n]
        lead += left[:, None]
        change = ids.astype(np.uint8) - labels[:, :, :n]
        change *= (lead > best).view(np.uint8)  # uint8 wraps; three times as fast as a masked copy
        labels[:, :, :n] += change
        best = np.maximum(best[:, :, :n_next], lead[:, :, :n_next])
    return labels


def _checked_scores(scores: NDArray[np.floating]) -> NDArray[np.float32]:
    """(C, h, w) C-contiguous float32, or `UserError`."""
    grid = scores[0] if scores.ndim == 4 and scores.shape[0] == 1 else scores
    if grid.ndim != 3:
        raise UserError(f"scores have shape {scores.shape}; expected (C, h, w) or (1, C, h, w)")
    if not 1 <= grid.shape[0] <= 255 or 0 in grid.shape:
        raise UserError(f"scores have shape {scores.shape}; expected 1 to 255 classes on at least one grid point")
    if grid.dtype not in (np.float32, np.float16):
        raise UserError(f"scores are {grid.dtype}; expected float32 or float16")
    grid = np.ascontiguousarray(grid, np.float32)
    if not (np.isfinite(grid.min()) and np.isfinite(grid.max())):
        raise UserError("scores hold NaN or infinity; the network overflowed: run it in float32 to see where")
    return grid


def _checked_out(
    frame: tuple[int, int], content: tuple[float, float], out: NDArray[np.uint8] | None
) -> NDArray[np.uint8]:
    """Return the C-contiguous array to fill, `out` itself where possible; `ValueError` for sizes that no frame has."""
    if not (len(frame) == 2 and min(frame) >= 1):
        raise ValueError(f"frame_size is {frame}; expected (height, width) of at least one pixel")
    if not (len(content) == 2 and all(0 < size < np.inf for size in content)):
        raise ValueError(f"content_size is {content}; expected a positive (height, width) in network-input pixels")
    if out is not None and (out.shape != tuple(frame) or out.dtype != np.uint8):
        raise ValueError(f"out is {out.dtype} {out.shape}; expected uint8 {tuple(frame)}")
    return np.empty(frame, np.uint8) if out is None or not out.flags.c_contiguous else out
