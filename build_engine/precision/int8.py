"""The INT8 graph: Q/DQ pairs where a `Placement` wants them, float16 or float32 elsewhere.

Conventions, those of TensorRT's explicit quantisation (and of ONNX, which is wider):

    activations   QuantizeLinear → DequantizeLinear, int8, one scale threshold / 127, zero point 0 written out
    weights       int8 initialiser → DequantizeLinear, one scale per output channel (axis 0), zero point 0
    bias          float: TensorRT's parser refuses an int32 bias that comes through DequantizeLinear

A QuantizeLinear with float16 scales exists from opset 19 on, so `elsewhere="fp16"` raises the graph to it;
`elsewhere="fp32"`, for CPU backends, stays at the opset it had.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx_ir as ir

from fcnedge.runtime.errors import UserError

from ..fusion.graph import add_initializer, constant
from .activation_range import TensorRanges, clipping_limit, never_negative
from .float32_layers import KeptLayer, float32_layers
from .float_types import FloatTypes, assign_float_types
from .fp16 import prepare
from .placement import Placement, QuantisedLayer
from .quantised_weight import LARGEST, quantise_weight, stored_scale

_HALF_OPSET, _HALF_IR_VERSION = 19, 9


@dataclass(frozen=True)
class Int8Report:
    """What was quantised. weight_sqnr_db: convolution → signal to rounding noise of its weight, in decibels.

    types, float32: of the float16 remainder; None and empty when the remainder is float32.
    """

    placement: Placement
    weight_sqnr_db: dict[str, float]
    types: FloatTypes | None
    float32: tuple[KeptLayer, ...]


def to_int8(
    model: ir.Model,
    ranges: TensorRanges,
    placement: Placement,
    *,
    elsewhere: Literal["fp16", "fp32"] = "fp16",
    activations: Literal["int8", "uint8"] = "int8",
) -> Int8Report:
    """Write the Q/DQ nodes of `placement` into a fused float32 graph, in place; on an error throw the graph away.

    ranges: of every float activation. activations="uint8" is for measuring CPU backends: no sign where calibration saw
    nothing negative (scale threshold / 255), else zero point 128. TensorRT takes int8 only.
    Raises UserError, naming the tensor, for a range that is missing, NaN, infinite or zero and a weight that is not
    finite, and for a placement of another graph.
    """
    half = elsewhere == "fp16"
    if half and activations != "int8":
        raise UserError("uint8 activations go with elsewhere='fp32', got 'fp16', which is for TensorRT: it takes int8.")
    prepare(model)
    kept = float32_layers(model, ranges) if half else ()
    if half:
        model.opset_imports[""], model.ir_version = _HALF_OPSET, max(model.ir_version, _HALF_IR_VERSION)
    writer = _Writer(model.graph, ranges, half=half, signed=activations == "int8")
    writer.activations(placement)
    sqnr = {layer.node: writer.layer(layer) for layer in placement.layers}
    types = assign_float_types(model, {layer.node for layer in kept}, ranges) if half else None
    _drop_unused(model.graph)
    return Int8Report(placement, sqnr, types, kept)


@dataclass(frozen=True)
class _Grid:
    """The integers of one activation: value = scale · (integer - zero_point)."""

    scale: float
    zero_point: np.ndarray


class _Writer:
    """Writes Q/DQ nodes into one graph."""

    def __init__(self, graph: ir.Graph, ranges: TensorRanges, *, half: bool, signed: bool) -> None:
        self._graph, self._ranges, self._half, self._signed = graph, ranges, half, signed
        self._nodes: Mapping[str, ir.Node] = {str(node.name): node for node in graph}
        self._weights: dict[str, tuple[ir.Value, ir.Value, ir.Value, float]] = {}

    def activations(self, placement: Placement) -> None:
        """One pair per tensor; the edges of `placement` read it, all others the float tensor as before."""
        pairs: dict[str, ir.Value] = {}
        for edge in placement.inputs:
            node = self._node(edge.node)
            value = node.inputs[edge.index] if edge.index < len(node.inputs) else None
            if value is None or value.name != edge.tensor:
                raise _another_graph(f"{edge.node} does not read {edge.tensor}")
            if edge.tensor not in pairs:
                pairs[edge.tensor] = self._pair(value, before=node)
            node.replace_input_with(edge.index, pairs[edge.tensor])

    def layer(self, layer: QuantisedLayer) -> float:
        """Quantise the weight of a convolution; returns its signal to rounding noise in dB."""
        node = self._node(layer.node)
        value = node.inputs[1]
        if value is None or value.name != layer.weight:
            raise _another_graph(f"{layer.node} does not hold {layer.weight}")
        integers, scale, zero_point, sqnr_db = self._weight(value)
        weight = self._dequantise([integers, scale, zero_point], f"{layer.node}.weight", value, axis=0)
        self._graph.insert_before(node, weight)
        node.replace_input_with(1, weight.outputs[0])
        return sqnr_db

    def _node(self, name: str) -> ir.Node:
        if name not in self._nodes:
            raise _another_graph(f"there is no node {name}")
        return self._nodes[name]

    def _pair(self, value: ir.Value, before: ir.Node) -> ir.Value:
        grid = self._grid(str(value.name))
        scale = add_initializer(self._graph, f"{value.name}.scale", np.asarray(grid.scale, np.float32))
        zero_point = add_initializer(self._graph, f"{value.name}.zero_point", grid.zero_point)
        quantise = ir.Node("", "QuantizeLinear", [value, scale, zero_point], name=f"{value.name}.quantised")
        integers = quantise.outputs[0]
        integers.name, integers.shape, integers.type = (
            quantise.name,
            value.shape,
            ir.TensorType(ir.DataType.from_numpy(grid.zero_point.dtype)),
        )
        dequantise = self._dequantise([integers, scale, zero_point], str(value.name), value)
        producer = value.producer()
        if producer is None:
            self._graph.insert_before(before, [quantise, dequantise])
        else:
            self._graph.insert_after(producer, [quantise, dequantise])
        return dequantise.outputs[0]

    def _grid(self, tensor: str) -> _Grid:
        limit = clipping_limit(self._ranges, tensor)
        unsigned = not self._signed and never_negative(self._ranges, tensor)
        scale = stored_scale(np.asarray(limit / (255 if unsigned else LARGEST)), half=self._half)
        zero_point = np.int8(0) if self._signed else np.uint8(0 if unsigned else 128)
        return _Grid(float(scale), np.asarray(zero_point))

    def _weight(self, value: ir.Value) -> tuple[ir.Value, ir.Value, ir.Value, float]:
        """Integers, scales and zero points of a weight, and its SQNR; convolutions that share a weight share them."""
        name = str(value.name)
        if name not in self._weights:
            array = constant(value)
            assert array is not None, "a placement holds constant weights only"
            quantised = quantise_weight(array, name, half_scales=self._half)
            self._weights[name] = (
                add_initializer(self._graph, f"{name}.int8", quantised.integers),
                add_initializer(self._graph, f"{name}.scale", quantised.scales),
                add_initializer(self._graph, f"{name}.zero_point", np.zeros(len(quantised.scales), np.int8)),
                quantised.sqnr_db,
            )
        return self._weights[name]

    @staticmethod
    def _dequantise(inputs: list[ir.Value], name: str, like: ir.Value, axis: int | None = None) -> ir.Node:
        attributes = [] if axis is None else [ir.AttrInt64("axis", axis)]
        node = ir.Node("", "DequantizeLinear", inputs, attributes=attributes, name=f"{name}.dequantised")
        made = node.outputs[0]
        made.name, made.shape, made.type = node.name, like.shape, ir.TensorType(ir.DataType.FLOAT)
        return node


def _another_graph(what: str) -> UserError:
    return UserError(f"the placement is of another graph ({what} in this one); place it on this graph again.")


def _drop_unused(graph: ir.Graph) -> None:
    for value in list(graph.initializers.values()):
        if not value.uses():
            del graph.initializers[str(value.name)]
