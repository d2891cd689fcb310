"""Rule 4: the last deconvolution, its crop, softmax and argmax leave the graph and become the runtime's head.

The graph then ends in the summed class scores (1, C, h, w) at the head's stride s. What was cut is remembered as a
`BilinearTail`: a bilinear deconvolution with kernel 2s, stride s and padding p equals, up to a positive factor that
is the same for all classes at the border, half-pixel bilinear interpolation shifted by p - s/2 pixels. Softmax is
monotonous, so the argmax does not change without it.

Refused, with the `labels` head kept in the graph instead, for a kernel that is not bilinear (a learned one), a
deconvolution with a bias (it changes who wins at the border) and an output that is not the input's size.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from .graph import constant, integer, ints, is_constant, shape_of
from .report import RuleLog, RuleReport

SCORES_NAME = "scores"
LABELS_NAME = "labels"
_MONOTONOUS = ("Softmax", "LogSoftmax", "Identity")
_KERNEL_TOLERANCE = 1e-6


@dataclass(frozen=True)
class BilinearTail:
    """The upsampling that was cut off: stride in pixels, offset (rows, columns) = padding before - stride / 2."""

    stride: int
    kernel: int
    offset: tuple[float, float]


def last_upsampling(graph: ir.Graph, input_size: tuple[int, int]) -> tuple[RuleReport, BilinearTail | None]:
    """Cut the tail off `graph`, in place, so that it ends in `scores`; or end it in `labels` and return None.

    input_size: (height, width) in pixels of the network's input.
    """
    log = RuleLog()
    output = graph.outputs[0]
    if output.name in (SCORES_NAME, LABELS_NAME):
        return log.report(), None
    last, softmaxes = _walk_back(output)
    if last.producer() is None or last.producer().op_type != "ConvTranspose":
        log.refuse(output.name, "the graph does not end in a deconvolution.")
        _end_in_labels(graph, last)
        return log.report(), None
    deconvolution = last.producer()
    tail = _bilinear_tail(deconvolution, input_size)
    if isinstance(tail, str):
        log.refuse(deconvolution.name, tail)
        _end_in_labels(graph, last)
        return log.report(), None
    log.applied = 1 + softmaxes
    _end_in(graph, deconvolution.inputs[0], SCORES_NAME)
    return log.report(), tail


def _walk_back(value: ir.Value) -> tuple[ir.Value, int]:
    """Through softmax, layout and argmax nodes to the value (1, C, H, W) that decides the argmax."""
    softmaxes = 0
    while (node := value.producer()) is not None:
        if node.op_type in _MONOTONOUS or node.op_type in ("Transpose", "ArgMax", "Cast", "Squeeze"):
            softmaxes += node.op_type in ("Softmax", "LogSoftmax")
            value = node.inputs[0]
        else:
            break
    return value, softmaxes


def _bilinear_tail(node: ir.Node, input_size: tuple[int, int]) -> BilinearTail | str:
    kernel = constant(node.inputs[1]) if is_constant(node.inputs[1]) else None
    if kernel is None:
        return "its kernel is not a constant."
    strides, pads = ints(node, "strides", (1, 1)), ints(node, "pads", (0, 0, 0, 0))
    if strides[0] != strides[1] or kernel.shape[2:] != (2 * strides[0], 2 * strides[0]):
        return f"a {kernel.shape[2]}x{kernel.shape[3]} kernel at stride {strides[0]}x{strides[1]} is not bilinear."
    stride = strides[0]
    if not _is_bilinear(kernel, stride, integer(node, "group", 1)):
        return "its kernel is learned, not bilinear."
    if len(node.inputs) > 2 and node.inputs[2] is not None and np.any(constant(node.inputs[2])):
        return "its bias is not zero, which changes the winner at the border."
    scores = shape_of(node.inputs[0])
    if scores is None:
        return "the size of its input is not known."
    size = tuple(stride * (scores[2 + i] + 1) - pads[i] - pads[i + 2] for i in range(2))
    if size != input_size:
        return f"its output is {size[1]}x{size[0]} pixels where the input has {input_size[1]}x{input_size[0]}."
    return BilinearTail(stride, 2 * stride, (pads[0] - stride / 2, pads[1] - stride / 2))


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


def _end_in_labels(graph: ir.Graph, scores: ir.Value) -> None:
    """End the graph in labels uint8 (1, H, W): the argmax over the classes of full-size scores (1, C, H, W)."""
    winner = ir.Node("", "ArgMax", [scores], attributes=_attributes(axis=1, keepdims=0), name="argmax")
    cast = ir.Node("", "Cast", [winner.outputs[0]], attributes=_attributes(to=int(ir.DataType.UINT8)), name="labels")
    winner.outputs[0].name = "winner"
    winner.outputs[0].type = ir.TensorType(ir.DataType.INT64)
    graph.extend([winner, cast])
    known = shape_of(scores)
    cast.outputs[0].type = ir.TensorType(ir.DataType.UINT8)
    if known is not None:
        cast.outputs[0].shape = ir.Shape((known[0], *known[2:]))
    _end_in(graph, cast.outputs[0], LABELS_NAME)


def _end_in(graph: ir.Graph, value: ir.Value, name: str) -> None:
    graph.outputs[0] = value
    value.name = name


def _attributes(**values: int) -> list[ir.Attr]:
    return [ir.AttrInt64(name, value) for name, value in values.items()]
