"""Small questions and edits on an ONNX graph that every fusion rule needs."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

_CONSTANT_KINDS = {"value_int": np.int64, "value_ints": np.int64, "value_float": np.float32, "value_floats": np.float32}


def constant(value: ir.Value | None) -> np.ndarray | None:
    """The array behind a constant value, or None for an activation. Reads big external weights: ask shape first."""
    if value is None:
        return None
    if value.const_value is not None:
        return value.const_value.numpy()
    producer = value.producer()
    if producer is None or producer.op_type != "Constant":
        return None
    name, attribute = next(iter(producer.attributes.items()))
    if name == "value":
        return attribute.as_tensor().numpy()
    kind = _CONSTANT_KINDS.get(name)
    return None if kind is None else np.asarray(attribute.value, kind)


def is_constant(value: ir.Value | None) -> bool:
    """Whether `value` is an initialiser or the output of a Constant node; reads nothing."""
    if value is None:
        return False
    producer = value.producer()
    return value.const_value is not None or (producer is not None and producer.op_type == "Constant")


def sole_consumer(value: ir.Value) -> ir.Node | None:
    """The only node that reads `value`; None if several do or if it is an output of the graph."""
    consumers = list(value.consumers())
    return consumers[0] if len(consumers) == 1 and not value.is_graph_output() else None


def shape_of(value: ir.Value | None) -> tuple[int, ...] | None:
    """Static shape, or None when any dimension is unknown."""
    if value is None:
        return None
    if value.shape is None:
        array = constant(value)
        return None if array is None else array.shape
    sides = tuple(value.shape)
    known = tuple(side for side in sides if isinstance(side, int))
    return known if len(known) == len(sides) else None


def ints(node: ir.Node, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
    """An integer-list attribute with its ONNX default."""
    attribute = node.attributes.get(name)
    return default if attribute is None else tuple(attribute.as_ints())


def integer(node: ir.Node, name: str, default: int) -> int:
    """An integer attribute with its ONNX default."""
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.as_int()


def add_initializer(graph: ir.Graph, name: str, array: np.ndarray) -> ir.Value:
    """Register `array` as a new initialiser; a taken name gets a number appended."""
    unique, number = name, 1
    while unique in graph.initializers:
        unique, number = f"{name}.{number}", number + 1
    value = ir.Value(
        name=unique,
        shape=ir.Shape(array.shape),
        type=ir.TensorType(ir.DataType.from_numpy(array.dtype)),
        const_value=ir.Tensor(array, name=unique),
    )
    graph.register_initializer(value)
    return value


def bypass(graph: ir.Graph, node: ir.Node, replacement: ir.Value) -> None:
    """Let whoever reads `node`'s output read `replacement` instead, and remove `node`.

    A graph output keeps its name; the shape and type known for the old output are kept for the new one.
    """
    old = node.outputs[0]
    if old.is_graph_output():
        replacement.name = old.name
    if old.shape is not None:
        replacement.shape = old.shape
    if replacement.type is None:
        replacement.type = old.type
    old.replace_all_uses_with(replacement, replace_graph_outputs=True)
    graph.remove(node, safe=True)


def channel_vector(array: np.ndarray, channels: int, rank: int = 4) -> np.ndarray | None:
    """(channels,) float64 when `array` broadcasts along axis 1 only of an NCHW tensor, else None."""
    if array.ndim > rank:
        return None
    if array.size == 1:
        return np.full(channels, array.reshape(()), np.float64)
    shape = (1,) * (rank - array.ndim) + array.shape
    return array.reshape(channels).astype(np.float64) if shape == (1, channels) + (1,) * (rank - 2) else None


def unfixed_padding(node: ir.Node) -> str | None:
    """Why the `pads` of a ConvTranspose are not its padding; None when they are."""
    auto_pad = node.attributes.get("auto_pad")
    if auto_pad is not None and auto_pad.as_string() not in ("NOTSET", "VALID"):
        return f"the deconvolution's padding is {auto_pad.as_string()}, which depends on the size."
    if "output_shape" in node.attributes:
        return "the deconvolution fixes its output_shape."
    return None
