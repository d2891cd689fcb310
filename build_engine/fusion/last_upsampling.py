"""Rule 4: the last deconvolution or Resize, its crop, softmax and argmax leave the graph and become the runtime's head.

The graph then ends in the summed class scores (1, C, h, w) at the head's stride s. What was cut is remembered as a
`BilinearTail`: a bilinear deconvolution with kernel 2s, stride s and padding p equals, up to a positive factor that
is the same for all classes at the border, half-pixel bilinear interpolation shifted by p - s/2 pixels. Softmax is
monotonous, so the argmax does not change without it. A linear Resize is that interpolation itself (resize_tail).

Refused, with the `labels` head kept in the graph instead, for a kernel that is not bilinear (a learned one), a
deconvolution with a bias (it changes who wins at the border) and an output that is not the input's size.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from .affine_into_convolution import has_bias
from .graph import constant, integer, ints, is_constant, shape_of, unfixed_padding
from .report import RuleLog, RuleReport
from .resize_tail import resize_tail

SCORES_NAME = "scores"
LABELS_NAME = "labels"
_SOFTMAXES = ("Softmax", "LogSoftmax")
_LAYOUT = ("Identity", "Cast", "Squeeze", "Transpose")
_KERNEL_TOLERANCE = 1e-6
_ASKED_FOR = "the labels head was asked for."


@dataclass(frozen=True)
class BilinearTail:
    """The upsampling that was cut off: stride in pixels, offset (rows, columns) = padding before - stride / 2.

    points: (h, w) of the scores where they are not the input's sides divided by the stride.
    """

    stride: int
    kernel: int
    offset: tuple[float, float]
    points: tuple[int, int] | None = None


def last_upsampling(
    graph: ir.Graph, input_size: tuple[int, int], *, labels: bool = False
) -> tuple[RuleReport, BilinearTail | None]:
    """Cut the tail off `graph`, in place, so that it ends in `scores`; or end it in `labels` and return None.

    input_size: (height, width) in pixels of the network's input; labels: end it in labels whatever the tail is.
    """
    log = RuleLog()
    output = graph.outputs[0]
    if output.name in (SCORES_NAME, LABELS_NAME):
        return log.report(), None
    last, class_axis, softmaxes = _walk_back(output, input_size)
    upsampling = last.producer()
    if upsampling is None or upsampling.op_type not in _TAILS or class_axis != 1:
        log.refuse(output.name, "the graph does not end in a deconvolution or Resize whose channels are the classes.")
        _end_in_labels(graph, last, class_axis)
        return log.report(), None
    tail = _ASKED_FOR if labels else _TAILS[upsampling.op_type](upsampling, input_size)
    if isinstance(tail, str):
        log.refuse(upsampling.name, tail)
        _end_in_labels(graph, last, class_axis)
        return log.report(), None
    log.applied = 1 + softmaxes
    _end_in(graph, _first_input(upsampling), SCORES_NAME)
    return log.report(), tail


def _walk_back(output: ir.Value, input_size: tuple[int, int]) -> tuple[ir.Value, int | None, int]:
    """Through argmax, softmax and layout nodes to the value that decides the argmax.

    Returns that value, the axis of its classes and how many softmaxes were passed; the axis is None, and the value
    the graph's output, when that holds labels which no argmax over classes gave.
    """
    value, class_axis, softmaxes = output, _class_axis(output, input_size), 0
    while (node := value.producer()) is not None:
        if class_axis is None and node.op_type == "ArgMax" and not integer(node, "select_last_index", 0):
            class_axis = integer(node, "axis", 0) % 4
        elif class_axis is not None and node.op_type == "Transpose":
            class_axis = ints(node, "perm", (3, 2, 1, 0))[class_axis]
        elif class_axis is not None and node.op_type in _SOFTMAXES and integer(node, "axis", -1) % 4 == class_axis:
            softmaxes += 1
        elif not _keeps_winner(node, of_labels=class_axis is None):
            break
        value = _first_input(node)
    return (output, None, 0) if class_axis is None else (value, class_axis, softmaxes)


def _class_axis(output: ir.Value, input_size: tuple[int, int]) -> int | None:
    """3 for scores as Keras lays them out, (1, H, W, C), 1 for (1, C, H, W), None for labels."""
    labels = output.producer()
    while labels is not None and labels.op_type in _LAYOUT:
        labels = _first_input(labels).producer()
    if (labels is not None and labels.op_type == "ArgMax") or (output.shape is not None and len(output.shape) != 4):
        return None
    shape = shape_of(output) or (0, 0, 0, 0)
    if (shape[1:3] == input_size) != (shape[2:] == input_size):
        return 3 if shape[1:3] == input_size else 1
    return _axis_of_channels(output)


def _axis_of_channels(value: ir.Value) -> int:
    """Where the channels (axis 1) of the last node that is not layout, softmax or cast lie in `value`."""
    node = value.producer()
    if node is None or node.op_type not in ("Transpose", "Identity", "Cast", *_SOFTMAXES):
        return 1
    axis = _axis_of_channels(_first_input(node))
    return ints(node, "perm", (3, 2, 1, 0)).index(axis) if node.op_type == "Transpose" else axis


def _keeps_winner(node: ir.Node, *, of_labels: bool) -> bool:
    """Whether the argmax without `node` is the same: layout and casts of labels, casts of scores that round nothing."""
    if node.op_type == "Cast" and not of_labels:
        return node.attributes["to"].as_int() in (ir.DataType.FLOAT, ir.DataType.DOUBLE)
    return node.op_type == "Identity" or (of_labels and node.op_type in _LAYOUT)


def _first_input(node: ir.Node) -> ir.Value:
    value = node.inputs[0]
    assert value is not None
    return value


def _bilinear_tail(node: ir.Node, input_size: tuple[int, int]) -> BilinearTail | str:
    kernel = constant(node.inputs[1]) if is_constant(node.inputs[1]) else None
    if kernel is None:
        return "its kernel is not a constant."
    strides, extra = ints(node, "strides", (1, 1)), ints(node, "output_padding", (0, 0))
    pads = tuple(pad - more for pad, more in zip(ints(node, "pads", (0,) * 4), (0, 0, *extra), strict=True))
    if strides[0] != strides[1] or kernel.shape[2:] != (2 * strides[0], 2 * strides[0]):
        return f"a {kernel.shape[2]}x{kernel.shape[3]} kernel at stride {strides[0]}x{strides[1]} is not bilinear."
    stride = strides[0]
    if not _is_bilinear(kernel, stride, integer(node, "group", 1)):
        return "its kernel is learned, not bilinear."
    reason = unfixed_padding(node)
    if reason is not None:
        return reason
    if max(ints(node, "dilations", (1, 1))) > 1 or min(pads) < 0:
        return "its kernel is dilated or its output reaches beyond its input."
    if has_bias(node) and (not is_constant(node.inputs[2]) or np.any(constant(node.inputs[2]))):
        return "its bias is not zero, which changes the winner at the border."
    scores = shape_of(node.inputs[0])
    if scores is None:
        return "the size of its input is not known."
    size = tuple(stride * (scores[2 + i] + 1) - pads[i] - pads[i + 2] for i in range(2))
    if size != input_size:
        return f"its output is {size[1]}x{size[0]} pixels where the input has {input_size[1]}x{input_size[0]}."
    points = None if scores[2:] == tuple(side // stride for side in input_size) else (scores[2], scores[3])
    return BilinearTail(stride, 2 * stride, (pads[0] - stride / 2, pads[1] - stride / 2), points)


def _resized_tail(node: ir.Node, input_size: tuple[int, int]) -> BilinearTail | str:
    found = resize_tail(node, input_size)
    return found if isinstance(found, str) else BilinearTail(found[0], 2 * found[0], (found[1], found[1]))


_TAILS = {"ConvTranspose": _bilinear_tail, "Resize": _resized_tail}


def _is_bilinear(kernel: np.ndarray, stride: int, group: int) -> bool:
    """Whether each class is upsampled by one and the same positive multiple of the bilinear kernel."""
    classes = kernel.shape[0]
    if group == classes and kernel.shape[1] == 1:
        diagonal = kernel[:, 0]
    elif group == 1 and kernel.shape[0] == kernel.shape[1]:
        if np.any(kernel[~np.eye(classes, dtype=bool)]):
            return False
        diagonal = kernel[np.arange(classes), np.arange(classes)]
    else:
        return False
    taps = 1 - np.abs(np.arange(2 * stride) - (stride - 0.5)) / stride
    expected = np.outer(taps, taps)
    gain = diagonal[0].sum() / expected.sum()
    return bool(gain > 0 and np.allclose(diagonal, gain * expected, rtol=0, atol=_KERNEL_TOLERANCE * gain))


def _end_in_labels(graph: ir.Graph, value: ir.Value, class_axis: int | None) -> None:
    """End the graph in labels uint8 (1, H, W): the argmax of `value` over its classes, or `value` itself."""
    labels, shape = value, value.shape
    if class_axis is not None:
        winner = ir.Node("", "ArgMax", [value], attributes=_attributes(axis=class_axis, keepdims=0), name="argmax")
        labels = winner.outputs[0]
        labels.name, labels.type = "winner", ir.TensorType(ir.DataType.INT64)
        shape = None if shape is None else ir.Shape([*shape[:class_axis], *shape[class_axis + 1 :]])
        graph.append(winner)
    cast = ir.Node("", "Cast", [labels], attributes=_attributes(to=int(ir.DataType.UINT8)), name="labels")
    cast.outputs[0].type = ir.TensorType(ir.DataType.UINT8)
    cast.outputs[0].shape = shape
    graph.append(cast)
    _end_in(graph, cast.outputs[0], LABELS_NAME)


def _end_in(graph: ir.Graph, value: ir.Value, name: str) -> None:
    graph.outputs[0] = value
    value.name = name


def _attributes(**values: int) -> list[ir.Attr]:
    return [ir.AttrInt64(name, value) for name, value in values.items()]
