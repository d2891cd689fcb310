"""The half of a build that needs Keras, in a process of its own: its answers and the exported graph end on disk.

TensorFlow does not give memory back, and VGG16's weights would otherwise be held twice, by Keras and by the graph's
runtime. A child process frees everything when it ends, and the parent never imports TensorFlow.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fcnedge.runtime.errors import UserError
from fcnedge.runtime.preprocessing import Preprocessing

from . import importers
from .doctor import missing_extra
from .importers.origin import Origin
from .model_source import ModelSource

EXPORTED_FILE = "exported.onnx"
_REQUEST_FILE, _RESULT_FILE = "request.json", "result.json"
_USER_ERROR = 2
# oneDNN's kernels pool memory and never return it; without them the export peaks lower and runs no slower.
_ENVIRONMENT = {"TF_ENABLE_ONEDNN_OPTS": "0", "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}


@dataclass(frozen=True)
class KerasResult:
    """What the stage left in its folder: the exported graph, one reference per picture, and these facts.

    notes: sentences for the user about how a foreign model was read.
    """

    preprocessing: Preprocessing
    layers: tuple[str, ...]
    weights_bytes: int
    references: list[Path]
    notes: tuple[str, ...] = ()


def run_keras_stage(
    source: ModelSource, fc_channels: int, pictures: list[tuple[str, np.ndarray]], folder: Path
) -> KerasResult:
    """Export `source` and run Keras on `pictures` (name, (H, W, 3) uint8 BGR at the network's size) in a child.

    Everything is written to `folder`. Raises UserError for what the user can put right, RuntimeError with the child's
    traceback for a bug.
    """
    names = []
    for index, (name, image) in enumerate(pictures):
        names.append((name, f"picture{index:04d}.npy"))
        np.save(folder / names[-1][1], image)
    absolute = replace(
        source,
        weights=None if source.weights is None else source.weights.resolve(),
        origin=None if source.origin is None else replace(source.origin, path=source.origin.path.resolve()),
    )
    request = {"source": asdict(absolute), "fc_channels": fc_channels, "pictures": names}
    (folder / _REQUEST_FILE).write_text(json.dumps(request, default=str), encoding="utf-8")
    child = subprocess.run(
        [sys.executable, "-m", __name__],
        cwd=folder,  # `python -m` imports from the current folder first: the user's may hold a keras.py of his own
        env={**os.environ, **_ENVIRONMENT},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    if child.returncode == _USER_ERROR:
        raise UserError(child.stderr.strip().splitlines()[-1])
    if child.returncode == -signal.SIGKILL:
        raise UserError("the export was killed, most likely for lack of memory; close other programs or add swap.")
    if child.returncode != 0:
        raise RuntimeError(f"the Keras stage failed with exit code {child.returncode}:\n{child.stderr}")
    result = json.loads((folder / _RESULT_FILE).read_text(encoding="utf-8"))
    return KerasResult(
        _preprocessing(result["preprocessing"]),
        tuple(result["layers"]),
        result["weights_bytes"],
        [folder / name for name in result["references"]],
        tuple(result["notes"]),
    )


def _preprocessing(data: dict) -> Preprocessing:
    """Preprocessing from JSON, whose lists are tuples again."""
    return Preprocessing(data["channel_order"], tuple(data["mean"]), tuple(data["scale"]))


def _work(folder: Path) -> None:
    """What the child does."""
    from .agreement import keras_references
    from .export import export_onnx, save_onnx
    from .importers.padding_difference import labels_as_published, padding_difference
    from .model_source import keras_model

    request = json.loads((folder / _REQUEST_FILE).read_text(encoding="utf-8"))
    data = request["source"]
    weights = None if data["weights"] is None else Path(data["weights"])
    origin = None if data["origin"] is None else Origin.from_json(data["origin"])
    size = (data["size"][0], data["size"][1])
    source = ModelSource(data["name"], data["arch"], tuple(data["classes"]), size, data["fit"], weights, origin)
    pictures = [(name, np.load(folder / file)) for name, file in request["pictures"]]
    with _import_notes() as notes:
        as_published = labels_as_published(source, pictures)
        notes.clear()  # the same file told the same
        model, preprocessing = keras_model(source, fc_channels=request["fc_channels"], fixed_size=True)
    _check_classes(model, source)
    references = keras_references(model, preprocessing, pictures, folder)
    if as_published is not None:
        notes.append(padding_difference(as_published, references))
    save_onnx(export_onnx(model, preprocessing, source.size), folder / EXPORTED_FILE)
    result = {
        "preprocessing": asdict(preprocessing),
        "layers": [layer.name for layer in model.layers],
        "weights_bytes": sum(int(np.prod(variable.shape)) * 4 for variable in model.weights),
        "references": [path.name for path in references],
        "notes": notes,
    }
    (folder / _RESULT_FILE).write_text(json.dumps(result), encoding="utf-8")


@contextlib.contextmanager
def _import_notes() -> Iterator[list[str]]:
    """What the importers log from INFO up, as sentences for the user."""
    notes: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: notes.append(record.getMessage())
    logger = logging.getLogger(importers.__name__)
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield notes
    finally:
        logger.removeHandler(handler)


def _check_classes(model: Any, source: ModelSource) -> None:
    """Raise UserError when a foreign model scores another number of classes than were named."""
    scored = model.output_shape[-1]
    if source.origin is not None and scored != len(source.classes):
        raise UserError(
            f"{source.origin.path} scores {scored} classes, {len(source.classes)} are named; name them with --classes."
        )


def _main() -> int:
    try:
        _work(Path.cwd())
    except UserError as error:
        sys.stderr.write(f"\n{' '.join(str(error).splitlines())}\n")  # the parent reads the last line
        return _USER_ERROR
    except ModuleNotFoundError as error:
        missing = missing_extra(error)
        if missing is None:
            raise
        sys.stderr.write(f"\n{missing}\n")
        return _USER_ERROR
    except OSError as error:
        sys.stderr.write(f"\nthe export could not write its files ({error.strerror}); free some disk space.\n")
        return _USER_ERROR
    return 0


if __name__ == "__main__":
    sys.exit(_main())
