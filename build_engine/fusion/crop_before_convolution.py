"""Rule 8: a crop after a 1x1 convolution moves in front of it.

A 1x1 convolution of stride 1 computes each pixel by itself, so

    Slice(W * x + b, rows and columns) = W * Slice(x, rows and columns) + b

Caffe's FCNs crop the scores of pool4 and pool3 to those they are added to. Moved, the crop saves the scores that it
would throw away, and the sum follows the convolution directly, as skip_add wants it.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from .graph import add_initializer, bypass, constant, ints, is_constant, shape_of, sole_consumer
from .report import RuleLog, RuleReport

_SPATIAL = (2, 3)


def crop_before_convolution(graph: ir.Graph) -> RuleReport:
    """Move every Slice of rows and columns that follows a 1x1 convolution, in place."""
    log = RuleLog()
    for node in list(graph):
        if node.op_type != "Slice" or node.inputs[0] is None:
            continue
        convolution = node.inputs[0].producer()
        if convolution is None or not _is_pointwise(convolution):
            continue
        reason = _move(graph, node, convolution)
        if reason is None:
            log.applied += 1
        else:
            log.refuse(node.name, reason)
    return log.report()


def _is_pointwise(node: ir.Node) -> bool:
    kernel = shape_of(node.inputs[1]) if node.op_type == "Conv" else None
    auto_pad = node.attributes.get("auto_pad")
    return (
        kernel is not None
        and kernel[2:] == (1, 1)
        and not any(ints(node, "pads", (0,) * 4))
        and set(ints(node, "strides", (1, 1))) == {1}
        and (auto_pad is None or auto_pad.as_string() in ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"))
    )


def _move(graph: ir.Graph, crop: ir.Node, convolution: ir.Node) -> str | None:
    if sole_consumer(convolution.outputs[0]) is not crop:
        return "the uncropped convolution is used elsewhere too."
    whole, kept = shape_of(convolution.outputs[0]), shape_of(crop.outputs[0])
    starts = _starts(crop, whole) if whole is not None else None
    if whole is None or kept is None or starts is None:
        return "the crop's bounds are not known."
    if kept[:2] != whole[:2]:
        return "the slice takes away pictures or classes, not only rows and columns."
    value = convolution.inputs[0]
    assert value is not None
    ends = [start + side for start, side in zip(starts, kept[2:], strict=True)]
    bounds = {"starts": starts, "ends": ends, "axes": list(_SPATIAL)}
    name = f"{convolution.name}.input_crop"
    constants = [add_initializer(graph, f"{name}.{part}", np.array(each, np.int64)) for part, each in bounds.items()]
    moved = ir.Node("", "Slice", [value, *constants], name=name)
    output, known = moved.outputs[0], shape_of(value)
    output.name, output.type = name, value.type
    output.shape = None if known is None else ir.Shape((*known[:2], *kept[2:]))
    graph.insert_before(convolution, moved)
    convolution.replace_input_with(0, output)
    convolution.outputs[0].shape = crop.outputs[0].shape
    bypass(graph, crop, convolution.outputs[0])
    return None


def _starts(crop: ir.Node, whole: tuple[int, ...]) -> list[int] | None:
    """First row and column that the Slice keeps; None unless its bounds are constant and its steps 1."""
    values = list(crop.inputs)[1:] + [None] * (5 - len(crop.inputs))
    if any(value is not None and not is_constant(value) for value in values):
        return None
    starts, ends, axes, steps = (None if (array := constant(v)) is None else array.tolist() for v in values)
    if starts is None or ends is None or (steps is not None and set(steps) != {1}):
        return None
    axes = range(len(starts)) if axes is None else [axis % 4 for axis in axes]
    first = [0, 0, 0, 0]
    for axis, start, end in zip(axes, starts, ends, strict=True):
        first[axis] = slice(start, end).indices(whole[axis])[0]
    return first[2:]
