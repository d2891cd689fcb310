"""Give every node of a float32 graph one float type, float16 or float32, and put a Cast where the two meet.

TensorRT builds strongly typed networks: it takes the types as they stand and refuses a node that mixes them. So every
node gets *one* type, its float inputs are brought to it, and all nodes that need the same cast share it.

Which inputs that concerns comes from the operator's own schema: the scales of a Resize are float32 by the standard,
whatever it resizes. Q/DQ nodes are transparent: a QuantizeLinear has the type of what it reads, and a
DequantizeLinear that of its reader. Readers of both types get a DequantizeLinear each; a Cast would part one of them
from the convolution that it has to fuse with.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir

from ..fusion.graph import add_initializer, constant, is_constant
from .activation_range import TensorRanges, largest_magnitude
from .float32_layers import OVERFLOW_LIMIT, input_kinds

_FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16)
_SMALLEST_NORMAL = 2.0**-14


@dataclass(frozen=True)
class FloatTypes:
    """What became float16. nodes: that compute in it; casts: between the two types; weights: numbers converted.

    weights_flushed: how many of these were not zero and are now; weights_subnormal: how many lie below 2^-14, where
    float16 has fewer digits.
    """

    nodes: int
    casts: int
    weights: int
    weights_flushed: int
    weights_subnormal: int


def assign_float_types(model: ir.Model, in_float32: Collection[str], ranges: TensorRanges) -> FloatTypes:
    """Bring `model` to float16, but for the nodes named in `in_float32`, in place.

    A float output of the graph becomes float16 whatever makes it, unless its range does not fit. requires: float32
    throughout, types known, nodes in topological order. ensures: no node reads or makes two float types, but where its
    schema fixes one.
    """
    typing = _Typing(model, frozenset(in_float32))
    for node in list(model.graph):
        typing.visit(node)
    typing.finish(ranges)
    return FloatTypes(typing.nodes, typing.casts, typing.weights, typing.flushed, typing.subnormal)


class _Typing:
    """One walk over a graph: what has been counted, and the casts and constants that later nodes can share."""

    def __init__(self, model: ir.Model, in_float32: frozenset[str]) -> None:
        self._graph, self._opset, self._in_float32 = model.graph, model.opset_imports[""], in_float32
        self._copies: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}
        self.nodes = self.casts = self.weights = self.flushed = self.subnormal = 0

    def visit(self, node: ir.Node) -> None:
        """Bring inputs and outputs of `node` to its type."""
        kind = self._type_of(node)
        schema = onnx.defs.get_schema(node.op_type, self._opset, node.domain)
        variables = {constraint.type_param_str for constraint in schema.type_constraints}
        for index, (value, name) in enumerate(zip(node.inputs, input_kinds(schema, len(node.inputs)), strict=True)):
            if value is not None and value.dtype in _FLOATS and name in variables:
                node.replace_input_with(index, self._as(value, kind, reader=node))
        made = [value for value in node.outputs if value.dtype in _FLOATS]
        for value in made:
            value.type = ir.TensorType(kind)
        if made and node.op_type == "Cast":
            node.attributes["to"] = ir.AttrInt64("to", int(kind))
        if made and kind == ir.DataType.FLOAT16 and node.op_type != "DequantizeLinear":
            self.nodes += 1

    def _type_of(self, node: ir.Node) -> ir.DataType:
        given = node.inputs[0]
        if node.op_type == "QuantizeLinear" and given is not None and given.dtype in _FLOATS:
            return ir.DataType(given.dtype)
        if node.op_type == "DequantizeLinear":
            return self._type_of(next(iter(node.outputs[0].consumers())))
        return ir.DataType.FLOAT if node.name in self._in_float32 else ir.DataType.FLOAT16

    def _as(self, value: ir.Value, kind: ir.DataType, reader: ir.Node | None = None) -> ir.Value:
        """`value` in type `kind`: itself, a converted constant, a second DequantizeLinear, or a cast."""
        if value.dtype == kind:
            return value
        if (value, kind) not in self._copies:
            made = self._constant(value, kind) if is_constant(value) else self._activation(value, kind, reader)
            self._copies[value, kind] = made
        return self._copies[value, kind]

    def _constant(self, value: ir.Value, kind: ir.DataType) -> ir.Value:
        array = constant(value)
        assert array is not None
        converted = array.astype(kind.numpy())
        self.weights += array.size
        self.flushed += int(np.count_nonzero((array != 0) & (converted == 0)))
        self.subnormal += int(np.count_nonzero((converted != 0) & (np.abs(array) < _SMALLEST_NORMAL)))
        return add_initializer(self._graph, _typed_name(value, kind), converted)

    def _activation(self, value: ir.Value, kind: ir.DataType, reader: ir.Node | None) -> ir.Value:
        producer, name = value.producer(), _typed_name(value, kind)
        if producer is not None and producer.op_type == "DequantizeLinear":
            integers, scale, zero_point = producer.inputs
            assert scale is not None
            inputs = [integers, self._as(scale, kind), zero_point]
            copy = ir.Node("", "DequantizeLinear", inputs, attributes=producer.attributes.values(), name=name)
        else:
            copy = ir.Node("", "Cast", [value], attributes=[ir.AttrInt64("to", int(kind))], name=name)
            self.casts += 1
        made = copy.outputs[0]
        made.name, made.type, made.shape = name, ir.TensorType(kind), value.shape
        if producer is not None:
            self._graph.insert_after(producer, copy)
        else:
            assert reader is not None, "only a node reads a graph's input"
            self._graph.insert_before(reader, copy)
        return made

    def finish(self, ranges: TensorRanges) -> None:
        """Bring the graph's float outputs to float16, and drop the constants that nothing reads any more."""
        for index, value in enumerate(self._graph.outputs):
            name = str(value.name)
            if value.dtype == ir.DataType.FLOAT and largest_magnitude(ranges, name) <= OVERFLOW_LIMIT:
                made = self._as(value, ir.DataType.FLOAT16)
                value.name, made.name = f"{name}.float32", name
                self._graph.outputs[index] = made
        for value in list(self._graph.initializers.values()):
            if not value.uses():
                del self._graph.initializers[str(value.name)]


def _typed_name(value: ir.Value, kind: ir.DataType) -> str:
    return f"{value.name}.{'float16' if kind == ir.DataType.FLOAT16 else 'float32'}"
