"""What an exported graph takes, where a server cannot give uint8 (1, H, W, 3) BGR: planes, floats, centred pixels."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ..fusion.graph import constant, ints, is_constant, shape_of, sole_consumer

_TO_PLANES, _TO_PIXELS = (0, 3, 1, 2), (0, 2, 3, 1)
_PIXELS_READ = 2  # the first nodes of a fused graph: Cast and Transpose, in either order


def take(graph: ir.Graph, *, planes: bool, floats: bool) -> None:
    """Let `graph` take BGR pixels of 0 to 255 as (1, 3, H, W) where `planes`, as float32 where `floats`.

    The graph's own Transpose, or its own Cast, goes; where it begins with something else, the inverse is put in front.
    """
    if planes:
        _take_planes(graph)
    if floats:
        _take_floats(graph)


def take_centred(graph: ir.Graph) -> tuple[float, float, float]:
    """Let `graph` take float32 (1, 3, H, W) from which the mean is subtracted already; gives that mean, (B, G, R).

    The input is then called as the centred tensor was, so that a calibration cache finds it. Where the graph does not
    begin with a mean per channel, it is left in the graph, and the mean given is zero.
    """
    take(graph, planes=True, floats=True)
    image = graph.inputs[0]
    node = sole_consumer(image)
    if node is None or node.op_type != "Sub" or node.inputs[0] is not image or not is_constant(node.inputs[1]):
        return (0.0, 0.0, 0.0)
    mean = constant(node.inputs[1])
    if mean is None or mean.shape != (1, 3, 1, 1):
        return (0.0, 0.0, 0.0)
    name = node.outputs[0].name
    _skip(graph, node)
    image.name = name
    blue, green, red = mean.astype(np.float64).reshape(3).tolist()
    return (blue, green, red)


def _take_planes(graph: ir.Graph) -> None:
    image, first = graph.inputs[0], _first_nodes(graph)
    batch, height, width, channels = tuple(image.shape or ())
    image.shape = ir.Shape((batch, channels, height, width))
    for node in first:
        if node.op_type == "Transpose" and ints(node, "perm", ()) == _TO_PLANES:
            for earlier in first[: first.index(node)]:
                earlier.outputs[0].shape = image.shape
            _skip(graph, node)
            return
    pixels = (batch, height, width, channels)
    _put_in_front(graph, "Transpose", ir.AttrInt64s("perm", _TO_PIXELS), image.dtype, pixels)


def _take_floats(graph: ir.Graph) -> None:
    image, first = graph.inputs[0], _first_nodes(graph)
    image.type = ir.TensorType(ir.DataType.FLOAT)
    for node in first:
        if node.op_type == "Cast" and node.attributes["to"].as_int() == ir.DataType.FLOAT:
            for earlier in first[: first.index(node)]:
                earlier.outputs[0].type = image.type
            _skip(graph, node)
            return
    to_bytes = ir.AttrInt64("to", int(ir.DataType.UINT8))
    _put_in_front(graph, "Cast", to_bytes, ir.DataType.UINT8, tuple(image.shape or ()))


def _first_nodes(graph: ir.Graph) -> list[ir.Node]:
    """The Casts and Transposes that the pixels pass one after the other, two at most."""
    nodes: list[ir.Node] = []
    value = graph.inputs[0]
    while len(nodes) < _PIXELS_READ and (node := sole_consumer(value)) and node.op_type in ("Cast", "Transpose"):
        nodes.append(node)
        value = node.outputs[0]
    return nodes


def _skip(graph: ir.Graph, node: ir.Node) -> None:
    """Let whoever reads `node`'s output read its first input, and remove `node`."""
    assert node.inputs[0] is not None, "its kind has an input"
    node.outputs[0].replace_all_uses_with(node.inputs[0])
    graph.remove(node, safe=True)


def _put_in_front(graph: ir.Graph, operator: str, attribute: ir.Attr, dtype: ir.DataType | None, shape: tuple) -> None:
    image = graph.inputs[0]
    readers = list(image.uses())
    node = ir.Node("", operator, [image], attributes=[attribute], name=f"{image.name}.{operator.lower()}")
    output = node.outputs[0]
    output.name, output.shape = node.name, ir.Shape(shape)
    output.type = None if dtype is None else ir.TensorType(dtype)
    for reader, index in readers:
        reader.replace_input_with(index, output)
    graph.insert_before(graph[0], node)


def input_shape(graph: ir.Graph) -> tuple[int, ...]:
    """Shape of the input of a graph whose sides are all fixed."""
    shape = shape_of(graph.inputs[0])
    assert shape is not None, "a bundle's graphs have fixed sizes"
    return shape
