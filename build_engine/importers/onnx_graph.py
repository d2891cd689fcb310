"""Another framework's ONNX graph in our convention: uint8 BGR (1, H, W, 3) in, full-size scores (1, H, W, C) out.

Sizes are fixed first; ONNX Runtime then works out all that depends on nothing else (the Shape, Gather and Concat that
exporters leave for free sizes) and writes a graph of ONNX's own operators.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common as passes

from fcnedge.runtime.errors import UserError

from ..export import FULL_OUTPUT_NAME, INPUT_NAME, OPSET
from ..fusion.graph import add_initializer
from .onnx_file import OnnxFile

_OLDEST_OPSET = 13
_FIRST_WITH_COORDINATES = 11
_NEWEST_IR_VERSION = 10
"""Of the file format: the newest that ONNX Runtime 1.20 reads."""
_FIXED, _FOLDED = "fixed.onnx", "folded.onnx"
_OUR_RULES = ["ConvAddFusion", "ConvMulFusion", "ConvBNFusion"]
"""What ONNX Runtime would do as our rules do: left to them, so that the report tells of it."""


def fixed_graph(file: OnnxFile, size: tuple[int, int], folder: Path) -> ir.Model:
    """`file`'s graph at `size` (height, width) in pixels for one picture, with the scores as its only output.

    Takes file.model apart. Weights stay on disk, in `folder`. Raises UserError where the operator set cannot be
    converted or ONNX Runtime refuses the graph.
    """
    model, graph = file.model, file.model.graph
    for node in graph:
        for value in node.outputs:
            value.shape = None
    file.image.shape = ir.Shape((1, 3, *size) if file.layout == "nchw" else (1, *size, 3))
    file.scores.type = file.scores.type or ir.TensorType(ir.DataType.FLOAT)
    graph.outputs.clear()
    graph.outputs.append(file.scores)
    passes.RemoveUnusedNodesPass()(model)
    if model.opset_imports.get("", 0) < _OLDEST_OPSET:
        model = _converted(file.path, model)
    ir.save(model, folder / _FIXED, external_data=f"{_FIXED}.data")
    folded = _folded(file.path, folder)
    passes.RemoveUnusedOpsetsPass()(folded)
    folded.ir_version = min(folded.ir_version, _NEWEST_IR_VERSION)
    folded.metadata_props.clear()
    return folded


def put_front_end(graph: ir.Graph, file: OnnxFile) -> None:
    """Let `graph` read uint8 BGR (1, H, W, 3) `image`, and bring that to what it read before, in place."""
    old = graph.inputs[0]
    assert old.shape is not None
    rows, columns = old.shape[2:] if file.layout == "nchw" else old.shape[1:3]
    image = ir.Value(name=INPUT_NAME, shape=ir.Shape((1, rows, columns, 3)), type=ir.TensorType(ir.DataType.UINT8))
    old.name = f"{INPUT_NAME}.network" if old.name == INPUT_NAME else old.name
    steps: list[tuple[str, np.ndarray | None, list[ir.Attr]]] = []
    if file.preprocessing.channel_order == "rgb":
        steps.append(("Gather", np.array([2, 1, 0]), [ir.AttrInt64("axis", 3)]))
    if old.dtype != ir.DataType.UINT8:
        steps.append(("Cast", None, [ir.AttrInt64("to", int(ir.DataType.FLOAT))]))
        for kind, numbers in (("Sub", file.preprocessing.mean), ("Mul", file.preprocessing.scale)):
            steps.append((kind, np.array(numbers, np.float32), []))
    if file.layout == "nchw":
        steps.append(("Transpose", None, [ir.AttrInt64s("perm", (0, 3, 1, 2))]))
    value, nodes = image, []
    for number, (kind, array, attributes) in enumerate(steps):
        name = f"{INPUT_NAME}_{number}_{kind.lower()}"
        constants = [] if array is None else [add_initializer(graph, f"{name}.constant", array)]
        nodes.append(ir.Node("", kind, [value, *constants], attributes=attributes, name=name))
        value = nodes[-1].outputs[0]
        value.name = name
    old.replace_all_uses_with(value, replace_graph_outputs=True)
    graph.inputs[0] = image
    for node in reversed(nodes):
        graph.insert_before(graph[0], node)


def put_full_size(graph: ir.Graph, class_axis: int, size: tuple[int, int]) -> tuple[int, int] | None:
    """End `graph` in full-size scores (1, H, W, C), in place; class_axis: 1 or 3, that of its output.

    Returns the (h, w) that the scores had where they had to be enlarged: half-pixel bilinear interpolation.
    """
    value = graph.outputs[0]
    assert value.shape is not None
    shape = [int(str(side)) for side in value.shape]
    classes, (rows, columns) = shape[class_axis], shape[2:] if class_axis == 1 else shape[1:3]
    points = None if (rows, columns) == size else (rows, columns)
    if points is not None:
        if class_axis == 3:
            value = _append(graph, "Transpose", [value], [ir.AttrInt64s("perm", (0, 3, 1, 2))])
        sizes = add_initializer(graph, "full_size", np.array([1, classes, *size], np.int64))
        attributes = [ir.AttrString("mode", "linear"), ir.AttrString("coordinate_transformation_mode", "half_pixel")]
        value = _append(graph, "Resize", [value, None, None, sizes], attributes)
        class_axis = 1
    if class_axis == 1:
        value = _append(graph, "Transpose", [value], [ir.AttrInt64s("perm", (0, 2, 3, 1))])
    value.name, value.shape = FULL_OUTPUT_NAME, ir.Shape((1, *size, classes))
    graph.outputs[0] = value
    return points


def _append(graph: ir.Graph, kind: str, inputs: list[ir.Value | None], attributes: list[ir.Attr]) -> ir.Value:
    node = ir.Node("", kind, inputs, attributes=attributes, name=f"full_{kind.lower()}_{len(graph)}")
    output = node.outputs[0]
    output.name, output.type = node.name, ir.TensorType(ir.DataType.FLOAT)
    graph.append(node)
    return output


def _converted(path: Path, model: ir.Model) -> ir.Model:
    """The same graph in our operator set."""
    from onnx import version_converter

    have = model.opset_imports.get("", 0)
    try:
        ir.external_data.load_to_model(model)
        converted = ir.from_proto(version_converter.convert_version(ir.to_proto(model), OPSET))
    except Exception as error:  # the converter's errors are RuntimeError, ValueError and its own
        raise UserError(
            f"{path} has opset {have}, which ONNX's converter cannot bring to {OPSET} "
            f"({str(error).splitlines()[0][:200].rstrip('.')}); export it with opset {OPSET}."
        ) from error
    if have < _FIRST_WITH_COORDINATES:  # all that Resize and Upsample were; the converter leaves the newer default
        for node in converted.graph:
            if node.op_type == "Resize":
                node.attributes.add(ir.AttrString("coordinate_transformation_mode", "asymmetric"))
                node.attributes.add(ir.AttrString("nearest_mode", "floor"))
    return converted


def _folded(path: Path, folder: Path) -> ir.Model:
    """The graph in `folder` after ONNX Runtime's basic optimisation, shapes and constants worked out."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 3
    options.optimized_model_filepath = str(folder / _FOLDED)
    options.add_session_config_entry("session.optimized_model_external_initializers_file_name", f"{_FOLDED}.data")
    options.add_session_config_entry("session.optimized_model_external_initializers_min_size_in_bytes", "1024")
    try:
        session = ort.InferenceSession(
            str(folder / _FIXED), options, providers=["CPUExecutionProvider"], disabled_optimizers=_OUR_RULES
        )
    except Exception as error:  # ONNX Runtime's own classes share nothing but this
        raise UserError(
            f"ONNX Runtime refuses {path} at this size ({str(error).splitlines()[0][:300].rstrip('.')}); try another "
            "--size or export it again."
        ) from error
    shape = session.get_outputs()[0].shape
    del session
    model = ir.load(folder / _FOLDED)
    if not all(isinstance(side, int) for side in shape):
        raise UserError(f"{path} gives scores of shape {shape}, which the size of a picture does not settle.")
    model.graph.outputs[0].shape = ir.Shape(shape)
    return model
