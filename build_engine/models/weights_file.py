"""Weights on disk as safetensors: by variable path, float16 or float32, with the model's own description."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fcnedge.runtime.errors import UserError, missing_package

_METADATA_KEY = "fcnedge"


@dataclass(frozen=True)
class WeightsInfo:
    """What a weights file says about itself. size: (height, width) in pixels it was trained for."""

    name: str
    arch: str
    classes: tuple[str, ...]
    size: tuple[int, int]
    fit: str


def save_weights(model: Any, path: Path, info: WeightsInfo, dtype: str = "float16") -> None:
    """Write every variable of a Keras `model` to `path`, whole or not at all.

    dtype: "float16" halves the file; values beyond its range (65504) are refused with UserError.
    """
    safetensors = _load_safetensors()
    arrays = {}
    for variable in model.variables:
        array = np.asarray(variable.value).astype(dtype)
        if not np.isfinite(array).all():
            raise UserError(f"{variable.path} holds values that {dtype} cannot; save float32 instead.")
        arrays[variable.path] = array
    description = {"name": info.name, "arch": info.arch, "classes": info.classes, "size": info.size, "fit": info.fit}
    temporary = path.with_name(path.name + ".part")
    safetensors.numpy.save_file(arrays, str(temporary), metadata={_METADATA_KEY: json.dumps(description)})
    temporary.replace(path)


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


def load_weights(model: Any, path: Path) -> None:
    """Fill a Keras `model` from `.safetensors` (by variable path) or Keras's own `.weights.h5` / `.h5`.

    Raises UserError that names the first variable which is missing or of another shape.
    """
    if not path.is_file():
        raise UserError(f"there is no weights file {path}; check the path.")
    if path.suffix == ".safetensors":
        _load_by_path(model, path)
    elif path.suffix == ".h5":
        try:
            model.load_weights(str(path))
        except (ValueError, OSError, KeyError) as error:
            raise UserError(f"{path} does not hold weights of {model.name}: {_first_line(error)}") from error
    else:
        raise UserError(f"{path} is not a weights file that fcnedge reads; it reads .safetensors and .weights.h5.")


def _load_by_path(model: Any, path: Path) -> None:
    with _open(path) as file:
        held = set(file.keys())
        for variable in model.variables:
            if variable.path not in held:
                raise UserError(f"{path} has no {variable.path}; it was saved from another model than {model.name}.")
            array = file.get_tensor(variable.path)
            if tuple(array.shape) != tuple(variable.shape):
                raise UserError(
                    f"{path}: {variable.path} has shape {tuple(array.shape)} where {model.name} has "
                    f"{tuple(variable.shape)}; the class list or the architecture differs."
                )
            variable.assign(array.astype(np.float32))


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
