"""Rule 3a: per-channel scales, shifts and batch norms fold into the convolution next to them.

After a convolution y = W * x + b:        g·y + h       = (g·W) * x + (g·b + h)
Batch norm with (γ, β, μ, σ²):            g = γ / √(σ² + ε),   h = β - g·μ
Before a convolution, a scale a:          W * (a·x)     = (W·a) * x              zero padding stays zero
Before a convolution, a shift c:          W * (x + c)   = W * x + Σ W·c          only without padding

A shift before a padded convolution does not fold: the padding is zero *after* the shift (VGG's mean subtraction), so
the constant differs at the border. Covers Caffe's and VLFeat's 0.01 and 0.0001 score scales, Keras batch norms as
tf2onnx writes them, and separate bias additions. Equal up to float32 rounding: products are formed in float64.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from .graph import (
    add_initializer,
    bypass,
    channel_vector,
    constant,
    integer,
    ints,
    is_constant,
    shape_of,
    sole_consumer,
)
from .report import RuleLog, RuleReport

_CONVOLUTIONS = ("Conv", "ConvTranspose")


def affine_into_convolution(graph: ir.Graph) -> RuleReport:
    """Fold, in place, every affine neighbour of every convolution until none is left."""
    log = RuleLog()
    for node in list(graph):
        if node.op_type not in _CONVOLUTIONS or not is_constant(node.inputs[1]):
            continue
        if has_bias(node) and not is_constant(node.inputs[2]):
            continue
        while (follower := sole_consumer(node.outputs[0])) is not None:
            affine = _affine_of(follower, node.outputs[0], _out_channels(node))
            if affine is None:
                break
            _scale_outputs(graph, node, *affine)
            bypass(graph, follower, node.outputs[0])
            log.applied += 1
        while _fold_before(graph, node, log):
            log.applied += 1
    return log.report()


def _fold_before(graph: ir.Graph, node: ir.Node, log: RuleLog) -> bool:
    value = node.inputs[0]
    before = value.producer() if value is not None else None
    if before is None or before.op_type not in ("Mul", "Div", "Add", "Sub"):
        return False
    source = next((candidate for candidate in before.inputs if not is_constant(candidate)), None)
    affine = _affine_of(before, source, _in_channels(node)) if source is not None else None
    if affine is None:
        return False
    scale, shift = affine
    if sole_consumer(before.outputs[0]) is not node:
        log.refuse(before.name, "its result is used elsewhere too.")
        return False
    if np.any(shift) and (any(ints(node, "pads", (0, 0, 0, 0))) or node.op_type != "Conv" or _auto_padded(node)):
        log.refuse(before.name, "a shift in front of a convolution folds only where nothing is padded.")
        return False
    _scale_inputs(graph, node, scale, shift)
    node.replace_input_with(0, source)
    graph.remove(before, safe=True)
    return True


def _affine_of(node: ir.Node, data: ir.Value, channels: int) -> tuple[np.ndarray, np.ndarray] | None:
    """(scale, shift), each (channels,) float64, if `node` computes scale·data + shift per channel."""
    if node.op_type == "BatchNormalization":
        return _batch_norm(node, data)
    if node.op_type not in ("Mul", "Div", "Add", "Sub") or len(node.inputs) != 2:
        return None
    first, second = node.inputs
    other = second if first is data else first
    if other is data or not is_constant(other):
        return None
    array = constant(other)
    vector = None if array is None or array.dtype.kind != "f" else channel_vector(array, channels)
    if vector is None or (node.op_type == "Div" and (first is not data or not np.all(vector))):
        return None
    ones, zeros = np.ones(channels), np.zeros(channels)
    if node.op_type == "Mul":
        return vector, zeros
    if node.op_type == "Div":
        return 1 / vector, zeros
    if node.op_type == "Add":
        return ones, vector
    return (ones, -vector) if first is data else (-ones, vector)


def _batch_norm(node: ir.Node, data: ir.Value) -> tuple[np.ndarray, np.ndarray] | None:
    arrays = [constant(value) for value in list(node.inputs)[1:5]]
    if integer(node, "training_mode", 0):
        return None
    if node.inputs[0] is not data or any(array is None for array in arrays):
        return None
    gamma, beta, mean, variance = (np.asarray(array, np.float64) for array in arrays)
    epsilon = node.attributes["epsilon"].as_float() if "epsilon" in node.attributes else 1e-5
    scale = gamma / np.sqrt(variance + epsilon)
    return scale, beta - scale * mean


def _scale_outputs(graph: ir.Graph, node: ir.Node, scale: np.ndarray, shift: np.ndarray) -> None:
    if np.any(scale != 1):
        kernel = _array(node.inputs[1])
        if node.op_type == "Conv":
            factors = scale.reshape(-1, 1, 1, 1)
        else:  # (in, out / group, k, k): the input channels of one group share the group's outputs
            group = integer(node, "group", 1)
            factors = np.repeat(scale.reshape(group, 1, -1), kernel.shape[0] // group, axis=1)
            factors = factors.reshape(kernel.shape[0], kernel.shape[1], 1, 1)
        _set_kernel(graph, node, kernel * factors)
    bias = _array(node.inputs[2]) if has_bias(node) else np.zeros(len(scale))
    if np.any(shift) or has_bias(node):
        set_bias(graph, node, scale * bias + shift)


def _scale_inputs(graph: ir.Graph, node: ir.Node, scale: np.ndarray, shift: np.ndarray) -> None:
    kernel = _array(node.inputs[1])
    if node.op_type == "ConvTranspose":  # (in, out / group, k, k)
        _set_kernel(graph, node, kernel * scale.reshape(-1, 1, 1, 1))
        return
    group = integer(node, "group", 1)  # (out, in / group, k, k)
    rows = kernel.shape[0] // group
    per_output = np.repeat(np.stack([scale, shift]).reshape(2, group, -1), rows, axis=1)
    if np.any(shift):
        bias = _array(node.inputs[2]) if has_bias(node) else np.zeros(kernel.shape[0])
        set_bias(graph, node, bias + (kernel.sum(axis=(2, 3)) * per_output[1]).sum(axis=1))
    if np.any(scale != 1):
        _set_kernel(graph, node, kernel * per_output[0][:, :, None, None])


def set_bias(graph: ir.Graph, node: ir.Node, bias: np.ndarray) -> None:
    """Give a convolution the bias (channels,), float32, under a new initialiser."""
    assert node.inputs[1] is not None
    value = add_initializer(graph, f"{node.inputs[1].name}.bias", bias.astype(np.float32))
    if len(node.inputs) < 3:
        node.resize_inputs(3)
    node.replace_input_with(2, value)


def _set_kernel(graph: ir.Graph, node: ir.Node, kernel: np.ndarray) -> None:
    assert node.inputs[1] is not None
    node.replace_input_with(1, add_initializer(graph, f"{node.inputs[1].name}.scaled", kernel.astype(np.float32)))


def _array(value: ir.Value | None) -> np.ndarray:
    array = constant(value)
    assert array is not None
    return array.astype(np.float64)


def has_bias(node: ir.Node) -> bool:
    """Whether a convolution's third input is there and not left empty."""
    return len(node.inputs) > 2 and node.inputs[2] is not None


def _auto_padded(node: ir.Node) -> bool:
    attribute = node.attributes.get("auto_pad")
    return attribute is not None and attribute.as_string() not in ("NOTSET", "VALID")


def _out_channels(node: ir.Node) -> int:
    shape = shape_of(node.inputs[1]) or (0, 0, 0, 0)
    return shape[0] if node.op_type == "Conv" else shape[1] * integer(node, "group", 1)


def _in_channels(node: ir.Node) -> int:
    shape = shape_of(node.inputs[1]) or (0, 0, 0, 0)
    return shape[1] * integer(node, "group", 1) if node.op_type == "Conv" else shape[0]
