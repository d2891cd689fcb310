"""Repair what tf2onnx makes of a bias that is computed at run time.

Keras adds a tensor of one pixel, such as a score of the whole picture, to a feature map as TensorFlow's BiasAdd.
tf2onnx 1.17 (conv2d_with_add_rewriter.py) merges it into the convolution in front: as its bias, which TensorRT and INT8
want constant, or as a second bias, a fourth input that ONNX does not know. Here it becomes an addition again:

    Conv(x, W, b, c(image)) = Conv(x, W, b) + c(image) as (1, C, 1, 1)
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from .fusion.graph import add_initializer, is_constant

_BIAS = 2


def separate_computed_biases(graph: ir.Graph) -> int:
    """Turn every computed bias into an addition, in place; returns how many there were."""
    separated = 0
    for node in list(graph):
        if node.op_type not in ("Conv", "ConvTranspose"):
            continue
        biases = [value for value in node.inputs[_BIAS:] if value is not None]
        computed = [value for value in biases if not is_constant(value)]
        if not computed:
            continue
        constants = [value for value in biases if is_constant(value)]
        node.resize_inputs(_BIAS + len(constants))
        for index, value in enumerate(constants):
            node.replace_input_with(_BIAS + index, value)
        for value in computed:
            _add_behind(graph, node, value)
            separated += 1
    return separated


def _add_behind(graph: ir.Graph, node: ir.Node, bias: ir.Value) -> None:
    planes_shape = add_initializer(graph, f"{node.name}/bias_shape", np.array((1, -1, 1, 1), np.int64))
    reshape = ir.node("Reshape", [bias, planes_shape], name=f"{node.name}/bias_planes")
    result = node.outputs[0]
    addition = ir.node("Add", [result, reshape.outputs[0]], name=f"{node.name}/add_bias")
    total = addition.outputs[0]
    total.shape, total.type = result.shape, result.type
    graph.insert_after(node, [reshape, addition])
    if result.is_graph_output():
        total.name, result.name = result.name, f"{node.name}/without_bias"
    result.replace_all_uses_with(total, replace_graph_outputs=True)
    addition.replace_input_with(0, result)
