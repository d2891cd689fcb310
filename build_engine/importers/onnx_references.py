"""What another framework's ONNX file says of pictures: ONNX Runtime on the file as it is, the rest by NumPy.

Nothing here is shared with what is built from the file: no front end, no folding, no rule. Graph optimisation is off.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir

from fcnedge.runtime.errors import UserError

from .onnx_file import OnnxFile

_WITH_SCORES = "reference.onnx"


def onnx_references(
    file: OnnxFile, classes: int, pictures: list[tuple[str, np.ndarray]], folder: Path
) -> tuple[list[Path], int]:
    """Run the file on `pictures` (name, (H, W, 3) uint8 BGR) and store one `agreement.Reference` each in `folder`.

    Returns their paths and the axis of the scores' classes, 1 or 3. Raises UserError for scores that are not of
    `classes` classes, that are not finite, and for a file that ONNX Runtime cannot run at this size.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    paths, axis = [], 1
    try:
        session = ort.InferenceSession(
            str(_file_with_scores(file, folder)), options, providers=["CPUExecutionProvider"]
        )
        for name, image in pictures:
            (answer,) = session.run([file.scores.name], {file.image.name: as_network_input(file, image)})
            axis = class_axis(file, np.asarray(answer).shape, classes)
            scores = np.moveaxis(np.asarray(answer, np.float32)[0], axis - 1, 0)
            paths.append(folder / f"reference{len(paths):04d}.npz")
            _store(paths[-1], file, name, image, scores)
    except (UserError, OSError):
        raise
    except Exception as error:  # ONNX Runtime's own classes share nothing but this
        first = str(error).splitlines()[0][:300].rstrip(".")
        raise UserError(
            f"ONNX Runtime cannot run {file.path} at this size ({first}); try another --size or export it again."
        ) from error
    return paths, axis


def as_network_input(file: OnnxFile, image: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 BGR → what the file's own input takes, by NumPy in float64 before it is rounded."""
    pixels = image[..., ::-1] if file.preprocessing.channel_order == "rgb" else image
    if file.image.dtype != ir.DataType.UINT8:
        mean, scale = (np.asarray(each) for each in (file.preprocessing.mean, file.preprocessing.scale))
        pixels = ((pixels - mean) * scale).astype(np.float32)
    return np.ascontiguousarray((pixels.transpose(2, 0, 1) if file.layout == "nchw" else pixels)[None])


def class_axis(file: OnnxFile, shape: tuple[int, ...], classes: int) -> int:
    """1 or 3, the axis of `shape` with `classes` channels, the input's own where both have. Raises UserError."""
    own = 1 if file.layout == "nchw" else 3
    if len(shape) != 4 or shape[0] != 1:
        raise UserError(
            f"{file.path}: {file.scores.name} has shape {shape}, no scores of one picture; choose an output that "
            "has with --output-name."
        )
    for axis in (own, 4 - own):
        if shape[axis] == classes:
            return axis
    raise UserError(
        f"{file.path}: {file.scores.name} has shape {shape}, which scores {shape[own]} classes, {classes} are named; "
        "name them with --classes."
        if shape[own] > 1
        else f"{file.path}: {file.scores.name} has shape {shape}, one class; a model of 2 to 255 is expected."
    )


def _file_with_scores(file: OnnxFile, folder: Path) -> Path:
    """The file itself, or where it gives labels only, the same graph with the scores as an output."""
    if file.has_scores_as_output:
        return file.path
    model = file.model.clone()
    scores = next(each for node in model.graph for each in node.outputs if each.name == file.scores.name)
    scores.type = scores.type or ir.TensorType(ir.DataType.FLOAT)
    model.graph.outputs.append(scores)
    ir.save(model, folder / _WITH_SCORES, external_data=f"{_WITH_SCORES}.data")
    return folder / _WITH_SCORES


def _store(path: Path, file: OnnxFile, name: str, image: np.ndarray, scores: np.ndarray) -> None:
    """scores: (C, h, w), brought to the picture's size by half-pixel bilinear interpolation where they are smaller."""
    if not np.isfinite(scores).all():
        raise UserError(f"{file.path} gives NaN or infinite scores on {name}; check it, --mean and --scale.")
    size = (image.shape[0], image.shape[1])
    own = scores.shape[1:] == size
    full = scores if own else _enlarged(scores, size)
    top = np.partition(full, len(full) - 2, axis=0)[-2:]
    np.savez(
        path,
        name=name,
        image=image,
        scores=np.empty(0) if own else scores,
        labels=full.argmax(0).astype(np.uint8),
        margin=(top[1] - top[0]).astype(np.float32),
        score_range=full.max() - full.min(),
    )


def _enlarged(scores: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(C, h, w) → (C, H, W) float64: each axis by a matrix of interpolation weights."""
    rows, columns = (_weights(have, want) for have, want in zip(scores.shape[1:], size, strict=True))
    return np.einsum("Hh,chw,Ww->cHW", rows, scores.astype(np.float64), columns, optimize=True)


def _weights(have: int, want: int) -> np.ndarray:
    """(want, have) float64: row x interpolates at (x + 0.5) · have / want - 0.5, clipped to the points."""
    at = np.clip((np.arange(want) + 0.5) * have / want - 0.5, 0, have - 1)
    return np.maximum(0, 1 - np.abs(at[:, None] - np.arange(have)))
