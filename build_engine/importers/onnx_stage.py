"""Another framework's ONNX file instead of Keras: the first half of a build, with the same result."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from fcnedge.runtime.errors import UserError

from ..export import save_onnx
from ..keras_stage import EXPORTED_FILE, KerasResult
from .onnx_file import OnnxFile, read_onnx
from .onnx_graph import fixed_graph, put_front_end, put_full_size
from .onnx_references import onnx_references
from .origin import FileFacts, Origin

if TYPE_CHECKING:
    from ..model_source import ModelSource

_WEIGHTED = ("Conv", "ConvTranspose")


def describe(origin: Origin) -> FileFacts:
    """What the file says about itself; weights that lie beside it are not read. Raises UserError."""
    file = read_onnx(origin)
    names, count = file.class_names, file.class_count
    if names is not None and count is not None and len(names) != count:
        names = None
    return FileFacts("onnx", names, count, file.size)


def run_onnx_stage(source: ModelSource, pictures: list[tuple[str, np.ndarray]], folder: Path) -> KerasResult:
    """Run the file of `source` as it is on `pictures`, and leave its graph in our convention in `folder`.

    pictures: (name, (H, W, 3) uint8 BGR at the network's size). Raises UserError.
    """
    assert source.origin is not None
    file = read_onnx(source.origin)
    if file.size is not None and file.size != source.size:
        raise UserError(
            f"{file.path} takes pictures of {file.size[1]}x{file.size[0]} only, --size is "
            f"{source.size[1]}x{source.size[0]}; leave it out, or export the model for any size."
        )
    layers = _layer_names(file.model.graph)
    weights = file.model.graph.initializers.values()
    weights_bytes = sum(value.const_value.nbytes for value in weights if value.const_value is not None)
    references, class_axis = onnx_references(file, len(source.classes), pictures, folder)
    opset = file.model.opset_imports.get("", 0)
    model = fixed_graph(file, source.size, folder)
    put_front_end(model.graph, file)
    points = put_full_size(model.graph, class_axis, source.size)
    save_onnx(model, folder / EXPORTED_FILE)
    notes = _notes(file, opset, model.opset_imports.get("", 0), points)
    return KerasResult(file.preprocessing, layers, weights_bytes, references, notes)


def _notes(file: OnnxFile, opset: int, now: int, points: tuple[int, int] | None) -> tuple[str, ...]:
    name, notes = file.path.name, []
    if file.assumed:
        notes.append(f"{name} does not say how its pixels are prepared; assumed: {', '.join(file.assumed)}.")
    if opset != now:
        notes.append(f"{name} was converted from opset {opset} to {now}.")
    if points is not None:
        notes.append(
            f"{name} ends in scores of {points[1]}x{points[0]} points; they are interpolated bilinearly to the picture."
        )
    return tuple(notes)


def _layer_names(graph: ir.Graph) -> tuple[str, ...]:
    """What the file calls its convolutions: `backbone.conv1` of `backbone.conv1.weight` or `/backbone/conv1/Conv`."""
    names: dict[str, None] = {}
    for node in graph:
        if node.op_type not in _WEIGHTED:
            continue
        weight = node.inputs[1].name if node.inputs[1] is not None else None
        module = re.fullmatch(r"(.+)\.(?:weight|kernel)", weight or "")
        scope = (node.name or "").strip("/").rpartition("/")[0]
        names.update(dict.fromkeys(name for name in (module[1] if module else "", scope) if name))
    return tuple(names)
