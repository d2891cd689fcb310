"""Exact sparse head against deconvolution + argmax: same scores and process, one thread each, every pixel compared."""

from __future__ import annotations

import sys
import time
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fcnedge.calibration.voc import read_voc
from fcnedge.runtime import BilinearHead, HeadGeometry, Segmenter
from fcnedge.runtime.command import Parser, run_command, table, write_json
from fcnedge.runtime.errors import UserError, missing_package
from fcnedge.runtime.options import add_options, option, read_options
from fcnedge.runtime.preprocessing import fit_frame

Scores = NDArray[np.float32]
Mask = NDArray[np.uint8]

# RuntimeError: zipfile's word for an encrypted member; MemoryError: a header that promises too much.
_DAMAGE = (OSError, ValueError, EOFError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True)
class HeadComparison:
    """What both heads took and where they disagree.

    dense_ms, sparse_ms: median over the pictures of each picture's best time, milliseconds. The sparse head never runs
        with warm caches: the dense one has just swept them, as a network would.
    ratio: median over the pictures of dense time / sparse time.
    pictures: number of score arrays.
    unequal_pixels: pixels with different labels, over all pictures. ONNX Runtime sums in float32, the sparse head in
        float64: a near-tie may fall either way.
    max_unequal_margin: largest float64 difference between the scores of the two labels at such a pixel; 0 if none.
    mixed_share: share of grid cells, over all pictures, whose four corners do not have the same label.
    """

    dense_ms: float
    sparse_ms: float
    ratio: float
    pictures: int
    unequal_pixels: int
    max_unequal_margin: float
    mixed_share: float


def compare_heads(scores: Sequence[NDArray[np.floating]], stride: int, repeats: int = 7) -> HeadComparison:
    """Time both heads on each picture, turn by turn, after a warm-up.

    scores: arrays (C, h, w) or (1, C, h, w), float32 or float16; the masks are (h * stride, w * stride).
    stride: even, network-input pixels per grid point; the deconvolution has kernel 2 * stride and pads stride / 2.
    repeats: timings of each picture, 1 or more. Raises UserError for anything else.
    """
    if not scores:
        raise UserError("there are no scores to compare on; give at least one (C, h, w) array")
    if repeats < 1:
        raise UserError(f"each picture would be timed {repeats} times; take 1 repeat or more.")
    pictures = [np.ascontiguousarray(array.reshape(array.shape[-3:]), np.float32) for array in scores]
    dense_heads = {classes: dense_head(classes, stride) for classes in {len(picture) for picture in pictures}}
    sparse = BilinearHead(HeadGeometry(stride))
    times, margins, mixed, cells = [], [], 0, 0
    for picture in pictures:
        dense = dense_heads[len(picture)]
        size = (picture.shape[1] * stride, picture.shape[2] * stride)
        margins.append(unequal_margins(picture, stride, dense(picture), sparse.labels(picture, size)))  # and warm-up
        turns = [(_ms(dense, picture), _ms(sparse.labels, picture, size)) for _ in range(repeats)]
        times.append(np.min(turns, axis=0))
        corners = mixed_cells(picture)
        mixed, cells = mixed + int(corners.sum()), cells + corners.size
    dense_ms, sparse_ms = np.transpose(times)
    margin = np.concatenate(margins)
    return HeadComparison(
        dense_ms=float(np.median(dense_ms)),
        sparse_ms=float(np.median(sparse_ms)),
        ratio=float(np.median(dense_ms / sparse_ms)),
        pictures=len(pictures),
        unequal_pixels=margin.size,
        max_unequal_margin=float(margin.max(initial=0.0)),
        mixed_share=mixed / max(cells, 1),
    )


def dense_head(classes: int, stride: int) -> Callable[[Scores], Mask]:
    """The head as exporters write it: ConvTranspose with a dense (C, C, 2s, 2s) kernel in ONNX Runtime, then argmax."""
    try:
        import onnxruntime
        from onnx import TensorProto, helper, numpy_helper
    except ImportError as error:
        raise missing_package(error.name or "onnxruntime", extra="build") from error
    if stride < 2 or stride % 2:
        raise UserError(
            f"stride is {stride}; the dense head has pads of stride / 2 and needs an even stride, 2 or more"
        )
    tent = 1 - np.abs(np.arange(2 * stride) - (stride - 0.5)) / stride
    kernel = np.zeros((classes, classes, 2 * stride, 2 * stride), np.float32)
    kernel[np.arange(classes), np.arange(classes)] = np.outer(tent, tent)
    node = helper.make_node(
        "ConvTranspose", ["x", "kernel"], ["y"], group=1, strides=[stride, stride], pads=[stride // 2] * 4
    )
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, classes, None, None]) for n in ("x", "y")]
    graph = helper.make_graph([node], "head", values[:1], values[1:], [numpy_helper.from_array(kernel, "kernel")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])

    def run(scores: Scores) -> Mask:
        upsampled = np.asarray(session.run(None, {"x": scores[None]})[0])
        return upsampled.argmax(axis=1).astype(np.uint8)[0]

    return run


def unequal_margins(scores: Scores, stride: int, a: Mask, b: Mask) -> NDArray[np.float64]:
    """|score of label a - score of label b| by float64 interpolation, one number for each pixel where they differ."""
    y, x = np.nonzero(a != b)
    total = np.zeros(len(y))
    rows, columns = _neighbours(y, stride, scores.shape[1]), _neighbours(x, stride, scores.shape[2])
    for row, row_weight in rows:
        for column, column_weight in columns:
            difference = scores[a[y, x], row, column].astype(np.float64) - scores[b[y, x], row, column]
            total += row_weight * column_weight * difference
    return np.abs(total)


def mixed_cells(scores: Scores) -> NDArray[np.bool_]:
    """(h - 1, w - 1): the cells between neighbouring grid points that need interpolation."""
    labels = scores.argmax(axis=0)
    corner = labels[:-1, :-1]
    return (corner != labels[1:, :-1]) | (corner != labels[:-1, 1:]) | (corner != labels[1:, 1:])


def synthetic_scores(pictures: int, classes: int = 21, grid: tuple[int, int] = (64, 64), seed: int = 0) -> list[Scores]:
    """(C, h, w) arrays like a network's: a few smooth regions, fine noise; about a tenth of the cells are mixed."""
    rng = np.random.default_rng(seed)
    waves = np.arange(4)
    down, across = (np.cos(np.pi * waves * (np.arange(n)[:, None] + 0.5) / n) for n in grid)
    amplitude = 4 / (1 + waves[:, None] + waves)
    smooth = [rng.standard_normal((classes, 4, 4)) * amplitude for _ in range(pictures)]
    noise = 0.15
    return [
        (np.einsum("yi,cij,xj->cyx", down, s, across) + noise * rng.standard_normal((classes, *grid))).astype(
            np.float32
        )
        for s in smooth
    ]


@dataclass(frozen=True)
class HeadOptions:
    """Command line of benchmarks/head.py. Scores come from a bundle, from a file, or are synthetic."""

    bundle: Path | None = option("take scores from this bundle, on pictures of --data", None, metavar="BUNDLE")
    data: Path | None = option("folder in VOC layout", None, metavar="VOC")
    split: str = option("list of pictures", "val")
    scores: Path | None = option("an .npz of (C, h, w) or (N, C, h, w) arrays", None, metavar="FILE")
    stride: int = option("network-input pixels per grid point, where no bundle says it", 8)
    pictures: int = option("how many pictures at most", 50)
    repeats: int = option("timings of each picture, the best is kept", 7)
    json: Path | None = option("write the result as JSON", None, metavar="FILE")


def build_parser() -> Parser:
    """The command line, from HeadOptions."""
    parser = Parser(prog="head.py", description=__doc__)
    add_options(parser, HeadOptions)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    options = read_options(HeadOptions, build_parser().parse_args(arguments))
    return run_command(lambda: _run(options), "head.py")


def _run(options: HeadOptions) -> None:
    for name, value in (("--pictures", options.pictures), ("--repeats", options.repeats)):
        if value < 1:
            raise UserError(f"{name} is {value}; it must be 1 or more.")
    stride = options.stride
    if stride < 2 or stride % 2:
        raise UserError(f"--stride is {stride}; it must be even, and 2 or more.")
    if options.bundle is not None:
        if options.data is None:
            raise UserError("--bundle needs --data, the folder whose pictures it scores.")
        scores, stride = real_scores(options.bundle, options.data, options.split, options.pictures)
    elif options.scores is not None:
        scores = read_scores(options.scores)[: options.pictures]
    else:
        scores = synthetic_scores(options.pictures)
    result = compare_heads(scores, stride, options.repeats)
    if options.json is not None:
        write_json(result, options.json)
    print(table((name, f"{value:.4g}") for name, value in asdict(result).items()))


def real_scores(bundle: Path, data: Path, split: str, pictures: int) -> tuple[list[Scores], int]:
    """The network's scores (C, h, w) on pictures spread over a VOC split, and its head's stride."""
    samples = read_voc(data, split)
    with Segmenter(bundle) as segmenter:
        manifest = segmenter.bundle.manifest
        if manifest.head.kind != "bilinear":
            raise UserError(f"{bundle} chooses its labels in the graph; the head has nothing to do there.")
        size = (manifest.input.height, manifest.input.width)
        chosen = samples[:: max(1, len(samples) // pictures)][:pictures]
        images = (fit_frame(sample.read_image(), size, manifest.input.fit)[0] for sample in chosen)
        return [segmenter.backend.infer(image[None])[0] for image in images], manifest.head.stride


def read_scores(path: Path) -> list[Scores]:
    """The pictures of all arrays in an .npz file, (C, h, w) float32 or float16 each.

    Raises UserError for another kind of file, a damaged one, and arrays of another shape or dtype.
    """
    arrays = _read_npz(path)
    for name, array in arrays.items():
        if array.ndim not in (3, 4) or 0 in array.shape or array.dtype not in (np.float32, np.float16):
            raise UserError(
                f"{path} holds {name}, {array.dtype} of shape {array.shape}; expected float32 or float16 (C, h, w) or "
                "(N, C, h, w): save the network's scores as they are."
            )
    return [picture for array in arrays.values() for picture in (array if array.ndim == 4 else [array])]


def _read_npz(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with path.open("rb") as file:  # np.load(path) leaves a damaged one open
            archive = np.load(file)
            if isinstance(archive, np.lib.npyio.NpzFile):
                return {name: np.asarray(archive[name]) for name in archive.files}  # a stray file comes as bytes
    except _DAMAGE as error:
        raise UserError(f"{path} is not a readable .npz of scores: {error}; save it again with np.savez.") from error
    raise UserError(f"{path} is a single array, not an .npz of scores; save it with np.savez.")


def _neighbours(pixel: NDArray[np.intp], stride: int, grid: int) -> list[tuple[NDArray[np.intp], NDArray[np.float64]]]:
    u = np.clip((pixel + 0.5) / stride - 0.5, 0, grid - 1)
    before = np.floor(u).astype(np.intp)
    return [(before, 1 - (u - before)), (np.minimum(before + 1, grid - 1), u - before)]


def _ms(action: Callable[..., object], *arguments: object) -> float:
    begin = time.perf_counter()
    action(*arguments)
    return (time.perf_counter() - begin) * 1e3


if __name__ == "__main__":
    sys.exit(main())
