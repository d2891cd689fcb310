"""A bundle's graph with the runtime's head in it: class ids or probabilities at the network's size, for other servers.

The head (see BilinearHead) is bilinear interpolation, argmax the winner. Grid point g has its centre at pixel
s·g + s/2 - 1/2 - offset, and a depthwise ConvTranspose spreads it with the taps 1 - |distance| / s: 2s of them where
centres lie between pixels, 2s - 1 where they lie on one. Beyond the last centre only one tap is left, which is the
head's clipped interpolation times a positive factor, the same for all classes.

Why ConvTranspose: taps of a stride that is a power of two are exact, and every backend adds the same four products.
Resize is ONNX's other word for it, and OpenVINO 2026.4 gives another label with it on 0.4% of the pixels of random
scores. Labels are cast by way of float32: TensorRT documents no other cast to uint8 before version 10.
https://docs.nvidia.com/deeplearning/tensorrt/archives/tensorrt-861/api/python_api/infer/FoundationalTypes/DataType.html
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx_ir as ir

from fcnedge.calibration.activations import load_graph
from fcnedge.runtime import Bundle, Manifest
from fcnedge.runtime.errors import UserError
from fcnedge.runtime.manifest import HeadSpec

from ..fusion.graph import add_initializer, shape_of

LABELS_NAME, PROBABILITIES_NAME = "labels", "probabilities"
_HEAD_NAMES = (
    "head.scores", "head.kernel", "head.upsampled", "head.winner", "head.number", LABELS_NAME, PROBABILITIES_NAME,
)  # fmt: skip
SINGLE_FILE_BYTES = (1 << 31) - (16 << 20)
"""Weights beyond this lie in a `.data` file: a protobuf message, and so an ONNX file, ends at 2 GiB."""


def open_graph(bundle: Bundle, precision: str, target: str | None = None) -> ir.Model:
    """The bundle's graph of that precision and target. Raises BundleError when there is none."""
    return load_graph(bundle.model(precision, target))


def end_in_labels(model: ir.Model, manifest: Manifest) -> None:
    """Let `model` end in `labels` uint8 (1, H, W); one that does already is left as it is. Raises UserError."""
    if manifest.head.kind == "labels":
        return
    graph = model.graph
    size = (manifest.input.height, manifest.input.width)
    scores = _upsampled(graph, manifest.head, size)
    winner = _add(graph, "ArgMax", [scores], "head.winner", ir.DataType.INT64, (1, *size), axis=1, keepdims=0)
    number = _cast(graph, winner, "head.number", ir.DataType.FLOAT)
    graph.outputs[0] = _cast(graph, number, LABELS_NAME, ir.DataType.UINT8)


def end_in_probabilities(model: ir.Model, manifest: Manifest) -> None:
    """Let `model` end in `probabilities` float32 (1, C, H, W), the softmax over the upsampled scores.

    Raises UserError for a bundle whose graph ends in labels.
    """
    if manifest.head.kind == "labels":
        raise UserError(
            f"{manifest.name} ends in labels, and this export needs the scores before them; build the bundle with "
            "--head bilinear."
        )
    size, graph = (manifest.input.height, manifest.input.width), model.graph
    scores = _upsampled(graph, manifest.head, size)
    shape = (1, len(manifest.classes), *size)
    graph.outputs[0] = _add(graph, "Softmax", [scores], PROBABILITIES_NAME, ir.DataType.FLOAT, shape, axis=1)


def describe(model: ir.Model, manifest: Manifest, precision: str) -> None:
    """Write into the graph's metadata what model.json says of it; lists as JSON."""
    preprocessing = manifest.preprocessing
    model.metadata_props.update(
        {
            "name": manifest.name,
            "arch": manifest.arch,
            "precision": precision,
            "classes": json.dumps(manifest.classes, ensure_ascii=False),
            "palette": json.dumps(manifest.palette),
            "fit": manifest.input.fit,
            # What the graph takes, by ONNX's own key: https://github.com/onnx/onnx/blob/main/docs/MetadataProps.md
            "Image.BitmapPixelFormat": "Bgr8",
            "trained_channel_order": preprocessing.channel_order,
            "trained_mean": json.dumps(preprocessing.mean),
            "trained_scale": json.dumps(preprocessing.scale),
            "versions": json.dumps(manifest.versions),
        }
    )


def save_whole(model: ir.Model, path: Path, *, limit: int = SINGLE_FILE_BYTES) -> list[Path]:
    """Write `model` as one file; with weights of more than `limit` bytes as two, the second named `.data`."""
    weights = [value.const_value for value in model.graph.initializers.values() if value.const_value is not None]
    if sum(tensor.nbytes for tensor in weights) > limit:
        data = path.with_name(f"{path.name}.data")
        ir.save(model, path, external_data=data.name, max_workers=1)
        return [path, data]
    ir.external_data.load_to_model(model)
    ir.save(model, path)
    return [path]


def _upsampled(graph: ir.Graph, head: HeadSpec, size: tuple[int, int]) -> ir.Value:
    """The scores of `graph` at `size` (height, width), float32."""
    _free_names(graph)
    scores = graph.outputs[0]
    shape = shape_of(scores)
    if shape is None or len(shape) != 4:
        raise UserError(f"the graph's scores have the shape {scores.shape}, not (1, C, h, w); rebuild the bundle.")
    if scores.dtype != ir.DataType.FLOAT:
        scores = _cast(graph, scores, "head.scores", ir.DataType.FLOAT)
    axes = [
        _taps(grid, side, head.stride, offset) for grid, side, offset in zip(shape[2:], size, head.offset, strict=True)
    ]
    if any(min(pads) < 0 for _, pads in axes):
        raise UserError(
            f"the head reads beyond its grid of {shape[3]}x{shape[2]} scores (offset {list(head.offset)}), which a "
            "deconvolution cannot; build the bundle with --head labels."
        )
    (rows, (top, bottom)), (columns, (left, right)) = axes
    kernel = np.broadcast_to(np.outer(rows, columns), (shape[1], 1, len(rows), len(columns)))
    weight = add_initializer(graph, "head.kernel", np.ascontiguousarray(kernel, np.float32))
    return _add(
        graph,
        "ConvTranspose",
        [scores, weight],
        "head.upsampled",
        ir.DataType.FLOAT,
        (1, shape[1], *size),
        group=shape[1],
        strides=(head.stride, head.stride),
        pads=(top, left, bottom, right),
    )


def _free_names(graph: ir.Graph) -> None:
    """Rename what the graph itself calls by a name of the head: a network may well have a layer `labels`."""
    values = [*graph.inputs, *graph.initializers.values(), *(value for node in graph for value in node.outputs)]
    taken = {*(value.name for value in values), *(node.name for node in graph), *_HEAD_NAMES}
    for named in (*values, *graph):
        if named.name in _HEAD_NAMES:
            free = f"{named.name}.network"
            while free in taken:
                free += "_"
            taken.add(free)
            named.name = free


def _taps(grid: int, side: int, stride: int, offset: float) -> tuple[np.ndarray, tuple[int, int]]:
    """One axis of the deconvolution: its weights, and what it cuts off before and after."""
    centre = stride / 2 - 0.5 - offset
    if (2 * centre) % 1:
        raise UserError(
            f"the head's offset is {offset:g} pixels, which no deconvolution expresses; build the bundle with "
            "--head labels."
        )
    count = 2 * stride - 1 if centre % 1 == 0 else 2 * stride
    taps = 1 - np.abs(np.arange(count) - (count - 1) / 2) / stride
    before = int((count - 1) / 2 - centre)
    return taps, (before, stride * (grid - 1) + count - before - side)


def _cast(graph: ir.Graph, value: ir.Value, name: str, dtype: ir.DataType) -> ir.Value:
    return _add(graph, "Cast", [value], name, dtype, value.shape, to=int(dtype))


def _add(
    graph: ir.Graph,
    operator: str,
    inputs: list[ir.Value],
    name: str,
    dtype: ir.DataType,
    shape: ir.Shape | tuple[int, ...] | None,
    **attributes: int | tuple[int, ...],
) -> ir.Value:
    """Append a node with one output, both called `name`."""
    kinds = [
        ir.AttrInt64(key, value) if isinstance(value, int) else ir.AttrInt64s(key, value)
        for key, value in attributes.items()
    ]
    node = ir.Node("", operator, inputs, attributes=kinds, name=name)
    output = node.outputs[0]
    output.name, output.type = name, ir.TensorType(dtype)
    output.shape = shape if isinstance(shape, ir.Shape | None) else ir.Shape(shape)
    graph.append(node)
    return output
