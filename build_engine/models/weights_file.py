"""Weights on disk as safetensors: by variable path, float16 or float32, with the model's own description."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fcnedge.runtime.errors import UserError, missing_package

_METADATA_KEY, _BILINEAR_KEY = "fcnedge", "fcnedge bilinear"
_DTYPES = ("F16", "F32", "F64")  # as safetensors spells them; NumPy has no BF16, and integers are quantised somehow


@dataclass(frozen=True)
class WeightsInfo:
    """What a weights file says about itself. size: (height, width) in pixels it was trained for."""

    name: str
    arch: str
    classes: tuple[str, ...]
    size: tuple[int, int]
    fit: str


def save_weights(model: Any, path: Path, info: WeightsInfo, dtype: str = "float16") -> None:
    """Write every weight of a Keras `model` to `path`, whole or not at all (not the seeds of its dropout layers).

    dtype: "float16" halves the file; values beyond its range (65504) are refused with UserError. Of deconvolution
    kernels that are bilinear only the names are kept: they follow from the shapes, and would be most of a small head.
    """
    safetensors = _load_safetensors()
    arrays, bilinear = {}, []
    for variable in model.weights:
        if _is_bilinear(np.asarray(variable.value)):
            bilinear.append(variable.path)
            continue
        with np.errstate(over="ignore"):  # said below, with the variable's name
            array = np.asarray(variable.value).astype(dtype)
        if not np.isfinite(array).all():
            raise UserError(f"{variable.path} holds values that {dtype} cannot; save float32 instead.")
        arrays[variable.path] = array
    description = {"name": info.name, "arch": info.arch, "classes": info.classes, "size": info.size, "fit": info.fit}
    temporary = path.with_name(path.name + ".part")
    try:
        # not save_file, whose files only their owner may read
        metadata = {_METADATA_KEY: json.dumps(description), _BILINEAR_KEY: json.dumps(bilinear)}
        temporary.write_bytes(safetensors.numpy.save(arrays, metadata=metadata))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_info(path: Path) -> WeightsInfo | None:
    """The description in a safetensors file; None for a file that fcnedge did not write. Raises UserError."""
    with _open(path) as file:
        text = (file.metadata() or {}).get(_METADATA_KEY)
    if text is None:
        return None
    try:
        data = json.loads(text)
        return WeightsInfo(
            data["name"],
            data["arch"],
            tuple(data["classes"]),
            (int(data["size"][0]), int(data["size"][1])),
            data["fit"],
        )
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise UserError(f"{path} describes its model wrongly ({error}); train or download it again.") from error


_CLASS_LAYERS = ("score", "upsample")
"""How the names of layers begin whose shape follows the number of classes: score_fr, score2, upsample_new …"""


def load_weights(model: Any, path: Path, *, new_scores: bool = False) -> None:
    """Fill a Keras `model` from `.safetensors` (by variable path) or Keras's own `.weights.h5` / `.h5`.

    new_scores: where a `.safetensors` file scores another number of classes, the layers that score or upsample classes
    stay as they are. Raises UserError that names the first variable which is missing or of another shape.
    """
    if not path.is_file():
        raise UserError(f"there is no weights file {path}; check the path.")
    if path.suffix == ".safetensors":
        _load_by_path(model, path, new_scores=new_scores)
    elif path.suffix == ".h5":
        try:
            with warnings.catch_warnings():
                # Keras names its own containers that a file lacks, and then the layer, in the error told below.
                warnings.filterwarnings("ignore", "Skipping nested container", UserWarning)
                model.load_weights(str(path))
        except (ValueError, OSError, KeyError) as error:
            raise UserError(f"{path} does not hold weights of {model.name}: {_first_line(error)}") from error
    else:
        raise UserError(f"{path} is not a weights file that fcnedge reads; it reads .safetensors and .weights.h5.")


def _load_by_path(model: Any, path: Path, *, new_scores: bool) -> None:
    from .fcn_head import bilinear_diagonal

    with _open(path) as file:
        held, bilinear = set(file.keys()), _bilinear_names(file.metadata() or {})
        for variable in model.weights:
            if variable.path in bilinear and _may_be_bilinear(variable.shape):
                variable.assign(bilinear_diagonal(tuple(variable.shape)))
                continue
            if variable.path not in held:
                raise UserError(f"{path} has no {variable.path}; it was saved from another model than {model.name}.")
            stored = file.get_slice(variable.path).get_dtype()
            if stored not in _DTYPES:
                raise UserError(
                    f"{path}: {variable.path} holds {stored}, not {' or '.join(_DTYPES)}; save it as float32."
                )
            array = file.get_tensor(variable.path)
            if tuple(array.shape) != tuple(variable.shape):
                if new_scores and variable.path.startswith(_CLASS_LAYERS):
                    continue
                raise UserError(
                    f"{path}: {variable.path} has shape {tuple(array.shape)} where {model.name} has "
                    f"{tuple(variable.shape)}; the class list or the architecture differs."
                )
            variable.assign(_unrounded(array).astype(np.float32))


def _bilinear_names(metadata: dict[str, str]) -> set[str]:
    try:
        return {name for name in json.loads(metadata.get(_BILINEAR_KEY, "[]")) if isinstance(name, str)}
    except (ValueError, TypeError):
        return set()  # a name that is missed is reported as one that the file has not


def _may_be_bilinear(shape: Sequence[int]) -> bool:
    return len(shape) == 4 and shape[0] % 2 == 0 and shape[1] % 2 == 0


def _is_bilinear(array: np.ndarray) -> bool:
    from .fcn_head import bilinear_diagonal

    return _may_be_bilinear(array.shape) and np.array_equal(array, bilinear_diagonal(array.shape))


def _unrounded(array: np.ndarray) -> np.ndarray:
    """Bilinear deconvolution kernels that a file holds as values, as they were before float16 rounded them.

    FCN-32s needs 12 bits for its 64x64 kernel and float16 has 11; unless restored, the kernel would pass for a learned
    one and keep the full-size upsampling in the graph.
    """
    from .fcn_head import bilinear_diagonal

    if array.dtype != np.float16 or not _may_be_bilinear(array.shape):
        return array
    exact = bilinear_diagonal(array.shape)
    return exact if np.array_equal(array, exact.astype(np.float16)) else array


def _open(path: Path) -> Any:
    safetensors = _load_safetensors()
    try:
        return safetensors.safe_open(str(path), framework="numpy")
    except (safetensors.SafetensorError, OSError) as error:
        raise UserError(f"{path} is not a readable safetensors file: {_first_line(error)}") from error


def _load_safetensors() -> Any:
    try:
        import safetensors
        import safetensors.numpy
    except ImportError as error:
        raise missing_package("safetensors", extra="build") from error
    return safetensors


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
