"""What a graph costs: nodes, multiply-adds and bytes of activations, from static shapes."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import onnx_ir as ir

from .graph import shape_of


@dataclass(frozen=True)
class GraphCost:
    """multiply_adds counts convolutions and deconvolutions; activation_bytes sums every node's outputs once."""

    nodes: int
    multiply_adds: int
    activation_bytes: int


def graph_cost(graph: ir.Graph) -> GraphCost:
    """Cost of one inference; nodes whose shape is not static count as nodes only."""
    return GraphCost(
        nodes=len(graph),
        multiply_adds=sum(_multiply_adds(node) for node in graph),
        activation_bytes=sum(_bytes(value) for node in graph for value in node.outputs),
    )


def _multiply_adds(node: ir.Node) -> int:
    if node.op_type not in ("Conv", "ConvTranspose"):
        return 0
    kernel = shape_of(node.inputs[1])
    positions = shape_of(node.outputs[0] if node.op_type == "Conv" else node.inputs[0])
    if kernel is None or positions is None:
        return 0
    # Conv (out, in / group, k, k): every output position of every output channel reads in / group · k · k inputs.
    # ConvTranspose (in, out / group, k, k): every input position of every input channel feeds out / group · k · k.
    return positions[0] * positions[2] * positions[3] * prod(kernel)


def _bytes(value: ir.Value) -> int:
    shape = shape_of(value)
    return 0 if shape is None or value.dtype is None else int(prod(shape) * value.dtype.itemsize)
