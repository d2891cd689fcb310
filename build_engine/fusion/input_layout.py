"""Rule 6: channel order, scale and layout of the input fold into the first convolution.

The graph takes uint8 BGR (1, H, W, 3). Whatever the exporter put between it and the first convolution (Cast, channel
Gather or reversing Slice, Sub, Add, Mul, Div per channel, layout Transpose, in any order) computes, per channel,

    x[c] = a[c] · pixel[order[c]] + d[c]

With W the first kernel and zero padding after x, W * x = W' * (pixel - m) with m[order[c]] = -d[c] / a[c] and
W'[:, order[c]] = W[:, c] · a[c]. So the chain becomes Cast (the only layer that TensorRT lets read uint8) → Transpose →
Sub m → Conv W'. The mean m stays in front: its padding is zero *after* the subtraction, so it cannot go into
the bias exactly at the border. It is left out where it is zero.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from .graph import add_initializer, constant, integer, ints, is_constant, shape_of, sole_consumer
from .report import RuleLog, RuleReport

_TO_NCHW = (0, 3, 1, 2)


@dataclass
class _Chain:
    """What has been understood so far: x[c] = scale[c] · pixel[order[c]] + shift[c], axes[i] = the image's axis."""

    order: np.ndarray
    scale: np.ndarray
    shift: np.ndarray
    axes: tuple[int, ...]
    nodes: list[ir.Node]

    @property
    def channel_axis(self) -> int:
        return self.axes.index(3)


def input_layout(graph: ir.Graph) -> RuleReport:
    """Rewrite what lies between the uint8 input and the first convolution, in place."""
    log = RuleLog()
    image = graph.inputs[0]
    chain = _Chain(np.arange(3), np.ones(3), np.zeros(3), (0, 1, 2, 3), [])
    value = image
    while True:
        node = sole_consumer(value)
        if node is None:
            log.refuse(value.name, "the input is read by several nodes.")
            return log.report()
        if node.op_type == "Conv":
            break
        reason = _understand(chain, node, value)
        if reason is not None:
            log.refuse(node.name, reason)
            return log.report()
        chain.nodes.append(node)
        value = node.outputs[0]
    reason = _reason_against(chain, node)
    if reason is not None:
        log.refuse(node.name, reason)
    elif not _is_canonical(chain):
        _rebuild(graph, image, chain, node)
        log.applied = 1
    return log.report()


def _understand(chain: _Chain, node: ir.Node, value: ir.Value) -> str | None:
    """Extend `chain` by `node`, or say why not."""
    if node.op_type == "Cast":
        real = node.attributes["to"].as_int() in (ir.DataType.FLOAT, ir.DataType.DOUBLE)
        return None if real else "the pixels are cast to something other than float32."
    if node.op_type == "Transpose":
        chain.axes = tuple(chain.axes[axis] for axis in ints(node, "perm", (3, 2, 1, 0)))
        return None
    if node.op_type in ("Gather", "Slice"):
        return _understand_order(chain, node)
    if node.op_type in ("Mul", "Div", "Add", "Sub"):
        return _understand_affine(chain, node, value)
    return f"{node.op_type} before the first convolution is not a per-channel operation."


def _understand_order(chain: _Chain, node: ir.Node) -> str | None:
    if node.op_type == "Gather":
        indices = constant(node.inputs[1])
        if integer(node, "axis", 0) % 4 != chain.channel_axis or indices is None or indices.shape != (3,):
            return "the Gather does not reorder the three colour channels."
        picked = indices
    else:
        bounds = [array.reshape(-1).tolist() for value in node.inputs[1:] if (array := constant(value)) is not None]
        if len(bounds) != 4 or [axis % 4 for axis in bounds[2]] != [chain.channel_axis]:
            return "the Slice does not reverse the three colour channels."
        (start,), (end,), _, (step,) = bounds
        picked = np.arange(3)[slice(start, end, step)]
    if sorted(int(index) % 3 for index in picked) != [0, 1, 2]:
        return "the channels are not only reordered."
    picked = np.asarray(picked) % 3
    chain.order, chain.scale, chain.shift = chain.order[picked], chain.scale[picked], chain.shift[picked]
    return None


def _understand_affine(chain: _Chain, node: ir.Node, value: ir.Value) -> str | None:
    if all(earlier.op_type != "Cast" for earlier in chain.nodes):
        return f"{node.op_type} calculates with bytes, which wrap around."
    first, second = node.inputs
    other = second if first is value else first
    array = constant(other) if is_constant(other) else None
    vector = None if array is None else _per_channel(array, chain.channel_axis)
    if vector is None:
        return f"{node.op_type} before the first convolution is not per channel."
    if node.op_type == "Mul":
        chain.scale, chain.shift = chain.scale * vector, chain.shift * vector
    elif node.op_type == "Div" and first is value:
        chain.scale, chain.shift = chain.scale / vector, chain.shift / vector
    elif node.op_type == "Add":
        chain.shift = chain.shift + vector
    elif node.op_type == "Sub" and first is value:
        chain.shift = chain.shift - vector
    else:
        return f"{node.op_type} divides or subtracts from a constant."
    return None


def _per_channel(array: np.ndarray, channel_axis: int) -> np.ndarray | None:
    shape = (1,) * (4 - array.ndim) + array.shape
    if array.size == 1 and len(shape) == 4:
        return np.full(3, float(array.reshape(())))
    expected = [1, 1, 1, 1]
    expected[channel_axis] = 3
    return array.reshape(3).astype(np.float64) if list(shape) == expected else None


def _reason_against(chain: _Chain, convolution: ir.Node) -> str | None:
    kernel = shape_of(convolution.inputs[1])
    if chain.axes != _TO_NCHW:
        return "the layout is not NCHW when it reaches the first convolution."
    if kernel is None or kernel[1] != 3 or not is_constant(convolution.inputs[1]):
        return "the first convolution's kernel is not a constant over three channels."
    if np.any(chain.scale == 0):
        return "a channel is multiplied by zero."
    return None


def _is_canonical(chain: _Chain) -> bool:
    kinds = [node.op_type for node in chain.nodes]
    reordered = np.any(chain.order != np.arange(3)) or np.any(chain.scale != 1)
    # Any other kind of node (a second Cast, an Add) is written anew, once.
    return not reordered and kinds in (["Cast", "Transpose"], ["Cast", "Transpose", "Sub"])


def _rebuild(graph: ir.Graph, image: ir.Value, chain: _Chain, convolution: ir.Node) -> None:
    mean, kernel = _folded(chain, convolution)
    known = shape_of(image)
    cast = ir.Node("", "Cast", [image], attributes=[ir.AttrInt64("to", int(ir.DataType.FLOAT))], name="image_float")
    pixels = cast.outputs[0]
    planes = ir.Node("", "Transpose", [pixels], attributes=[ir.AttrInt64s("perm", _TO_NCHW)], name="image_planes")
    nodes = [cast, planes]
    if np.any(mean):
        mean_value = add_initializer(graph, "image_mean", mean.astype(np.float32).reshape(1, 3, 1, 1))
        nodes.append(ir.Node("", "Sub", [planes.outputs[0], mean_value], name="image_centred"))
    for node in nodes:
        node.outputs[0].name, node.outputs[0].type = node.name, ir.TensorType(ir.DataType.FLOAT)
        axes = range(4) if node is cast else _TO_NCHW
        node.outputs[0].shape = None if known is None else ir.Shape(known[axis] for axis in axes)
    graph.insert_before(convolution, nodes)
    convolution.replace_input_with(0, nodes[-1].outputs[0])
    assert convolution.inputs[1] is not None
    name = f"{convolution.inputs[1].name}.bgr"
    convolution.replace_input_with(1, add_initializer(graph, name, kernel.astype(np.float32)))
    graph.remove(list(reversed(chain.nodes)), safe=True)


def _folded(chain: _Chain, convolution: ir.Node) -> tuple[np.ndarray, np.ndarray]:
    """(mean per BGR channel, kernel over BGR channels), float64."""
    old = constant(convolution.inputs[1])
    assert old is not None
    mean, kernel = np.zeros(3), np.zeros(old.shape)
    mean[chain.order] = -chain.shift / chain.scale
    kernel[:, chain.order] = old * chain.scale[:, None, None]
    return mean, kernel
