"""What each kernel of kernels.cu is told: block, grid and arguments, from model.json and the size of the frame.

Pure NumPy: no CUDA is needed to compute or to test it.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, gcd

import numpy as np
from numpy.typing import DTypeLike

from ..errors import BackendError, UserError
from ..head import check_filter_mode
from ..manifest import MAX_SIDE_PX, Manifest
from ..preprocessing import letterbox_size

_WARP = 32  # threads that run together, on every NVIDIA GPU
_CELL_THREADS = 64  # of one block in a cell of the score grid: two warps
_CELL_PIXELS = 1024  # larger cells are worked on by several blocks
_OVERLAY_THREADS = 256
_OVERLAY_PIXELS = 4  # of one thread: one word of labels


@dataclass(frozen=True)
class KernelLaunch:
    """One kernel of kernels.cu, ready to be started.

    name: in kernels.cu. block: threads (x, y, z) of a block; grid: blocks (x, y, z).
    arguments: NumPy scalars, 32 bits each, that follow the pointers.
    """

    name: str
    block: tuple[int, int, int]
    grid: tuple[int, int, int]
    arguments: tuple[np.int32 | np.float32, ...]


def content_size(manifest: Manifest, frame_size: tuple[int, int]) -> tuple[int, int]:
    """(height, width) in pixels that a frame of `frame_size` (height, width) takes at the network input's top left."""
    size = manifest.input.height, manifest.input.width
    return letterbox_size(frame_size, size) if manifest.input.fit == "letterbox" else size


def preprocess_launch(manifest: Manifest, frame_size: tuple[int, int]) -> KernelLaunch:
    """`preprocess(source, source_pitch, target, *arguments)`: frame to network input, as `fit_frame` does it.

    source: (H, W, 3) uint8 BGR, rows `source_pitch` bytes (int32, 3 * W or more) apart; target: (1, h, w, 3) uint8 BGR.
    frame_size: (H, W). Raises UserError for a frame that is empty or has more than 16384 pixels a side.
    """
    _check_frame_size(frame_size)
    height, width = manifest.input.height, manifest.input.width
    block = _WARP, 8, 1
    grid = ceil(width / block[0]), ceil(height / block[1]), 1
    numbers = *frame_size, *content_size(manifest, frame_size), height, width
    return KernelLaunch("preprocess", block, grid, tuple(map(np.int32, numbers)))


def labels_launch(
    manifest: Manifest, frame_size: tuple[int, int], score_dtype: DTypeLike, filter_mode: str = "linear"
) -> KernelLaunch:
    """`scores_to_labels_f32` or `_f16(scores, labels, *arguments)`: class scores to class ids at the frame's size.

    scores: (1, C, h, w) of `score_dtype`, float32 or float16, C-contiguous, h and w the manifest's
    score_points; labels: (H, W) uint8, C-contiguous. frame_size: (H, W). filter_mode: of BilinearHead,
    "linear" or "point".

    Raises UserError for another filter mode and a frame that is empty or has more than 16384 pixels a side,
    BackendError for a head that is no multiple of half a pixel away from the input's corner (no exporter gives one),
    ValueError for a head that needs no upsampling and for other dtypes.
    """
    _check_frame_size(frame_size)
    check_filter_mode(filter_mode)
    head = manifest.head
    if head.kind != "bilinear":
        raise ValueError(f"the head is {head.kind!r}; only 'bilinear' has scores to upsample")
    kernels = {np.dtype(np.float32): "scores_to_labels_f32", np.dtype(np.float16): "scores_to_labels_f16"}
    if np.dtype(score_dtype) not in kernels:
        raise ValueError(f"scores are {np.dtype(score_dtype)}; expected float32 or float16")
    content = content_size(manifest, frame_size)
    axes = zip(manifest.score_points, frame_size, content, head.offset, strict=True)
    rows, columns = (_score_axis(*axis, stride=head.stride) for axis in axes)
    threads = min(_WARP, max(8, 1 << (columns.cell_pixels - 1).bit_length()))
    block = threads, _CELL_THREADS // threads, 1
    slices = ceil(rows.cell_pixels * columns.cell_pixels / _CELL_PIXELS)
    grid = columns.cells, rows.cells, min(slices, ceil(rows.cell_pixels / block[1]))
    numbers = len(manifest.classes), filter_mode == "point", *rows.arguments, *columns.arguments
    return KernelLaunch(kernels[np.dtype(score_dtype)], block, grid, tuple(map(np.int32, numbers)))


def overlay_launch(frame_size: tuple[int, int], alpha: float) -> KernelLaunch:
    """`overlay(frame, labels, palette, painted, *arguments)`: class colours over the frame, in place, as `blend` does.

    frame: (H, W, 3) uint8 BGR without gaps, labels: (H, W) uint8, both at addresses divisible by 4; palette: (256, 3)
    uint8 BGR; painted: (256,) uint8, 0 for the class ids that keep the camera's pixels. frame_size: (H, W);
    alpha: 0 (frame only) to 1 (colour only).

    Raises UserError for an alpha outside 0..1 and for a frame that is empty or has more than 16384 pixels a side.
    """
    _check_frame_size(frame_size)
    if not 0 <= alpha <= 1:
        raise UserError(f"alpha is {alpha}; it must lie between 0 (frame only) and 1 (colour only)")
    pixels = frame_size[0] * frame_size[1]
    grid = ceil(pixels / (_OVERLAY_THREADS * _OVERLAY_PIXELS)), 1, 1
    arguments = np.int32(pixels), np.float32(1 - alpha), np.float32(alpha)
    return KernelLaunch("overlay", (_OVERLAY_THREADS, 1, 1), grid, arguments)


@dataclass(frozen=True)
class _ScoreAxis:
    """Rows or columns of the frame on the score grid: pixel i lies at (first + step * i) / denominator.

    points: of the grid; pixels: of the frame; cell: the one of pixel 0, from -1, before the first grid point, to
    points - 1, after the last; cells: how many lie under the frame; cell_pixels: at most, of those inside the grid.
    """

    points: int
    pixels: int
    cell: int
    step: int
    first: int
    denominator: int

    @property
    def cells(self) -> int:
        return self._cell_of(self.pixels - 1) - self.cell + 1

    @property
    def cell_pixels(self) -> int:
        return min(self.pixels, ceil(self.denominator / self.step))

    @property
    def arguments(self) -> tuple[int, ...]:
        return self.points, self.pixels, self.cell, self.step, self.first, self.denominator

    def _cell_of(self, pixel: int) -> int:
        cell = (self.first + self.step * pixel) // self.denominator
        return min(max(cell, -1), self.points - 1)


def _score_axis(points: int, pixels: int, content: int, offset: float, stride: int) -> _ScoreAxis:
    """BilinearHead's u(x) = ((x + 0.5) * content / pixels + offset) / stride - 0.5 over its smallest denominator.

    No number in the kernel reaches 2**31: sides are 16384 pixels at most, strides 1024, offsets 4096 (model.json).
    """
    if not float(2 * offset).is_integer():
        raise BackendError(
            f"the head's offset is {offset} pixels and the GPU's kernels know multiples of 0.5; choose a CPU backend."
        )
    step, denominator = 2 * content, 2 * pixels * stride
    first = content + int(2 * offset) * pixels - pixels * stride
    shared = gcd(step, first, denominator)
    step, first, denominator = step // shared, first // shared, denominator // shared
    cell = min(max(first // denominator, -1), points - 1)
    return _ScoreAxis(points, pixels, cell, step, first, denominator)


def _check_frame_size(frame_size: tuple[int, int]) -> None:
    if not all(1 <= side <= MAX_SIDE_PX for side in frame_size):
        raise UserError(
            f"the frame has {frame_size[0]} rows of {frame_size[1]} pixels; the GPU takes 1 to {MAX_SIDE_PX} of each."
        )
