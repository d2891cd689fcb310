"""Rule 1: a crop after a deconvolution becomes padding of the deconvolution. Bit-exact.

ConvTranspose writes y[i] = Σ x[j]·w[i + p - s·j] for output rows i ≥ 0, so its padding p *is* a crop of the unpadded
output: cropping c more rows at the top gives y[i + c] = Σ x[j]·w[i + (p + c) - s·j]. Hence

    Slice(ConvTranspose(x; pads = p), crop c) = ConvTranspose(x; pads = p + c)

and the cropped rows are never computed. A crop of c ≥ k rows, k being the kernel's reach, first takes away the
d = ⌊(c - k) / s⌋ + 1 input rows that write into nothing else: their last output row s·(d - 1) + k - 1 is below c, and

    crop c of ConvTranspose(x) = crop c - s·d of ConvTranspose(Slice(x, d rows))

so that less than a kernel is left, which backends accept as padding (Caffe's FCN-8s crops 31 with a kernel of 16).
Exporters write the Slice in many ways: no `steps`, axes in any order
([0, 2, 3, 1] from tf2onnx), ends as INT32_MAX, INT64_MAX, negative or absolute.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from .graph import add_initializer, bypass, constant, ints, is_constant, shape_of, sole_consumer, unfixed_padding
from .report import RuleLog, RuleReport

_OPEN_END = 2**31 - 1
_SPATIAL = (2, 3)


def crop_into_deconvolution(graph: ir.Graph) -> RuleReport:
    """Fold every Slice whose input is a ConvTranspose, in place."""
    log = RuleLog()
    for node in list(graph):
        if node.op_type != "Slice" or node.inputs[0] is None:
            continue
        deconvolution = node.inputs[0].producer()
        if deconvolution is None or deconvolution.op_type != "ConvTranspose":
            continue
        reason = _fold(graph, node, deconvolution)
        if reason is None:
            log.applied += 1
        else:
            log.refuse(node.name, reason)
    return log.report()


def _fold(graph: ir.Graph, crop: ir.Node, deconvolution: ir.Node) -> str | None:
    if sole_consumer(deconvolution.outputs[0]) is not crop:
        return "the uncropped deconvolution is used elsewhere too."
    reason = unfixed_padding(deconvolution)
    if reason is not None:
        return reason
    amounts = _crop_amounts(crop, deconvolution)
    if isinstance(amounts, str):
        return amounts
    pads = tuple(pad + amount for pad, amount in zip(ints(deconvolution, "pads", (0,) * 4), amounts, strict=True))
    kernel = _kernel_shape(deconvolution)
    if kernel is None:
        return "the kernel's size is not known."
    unread = _unread(deconvolution, pads)
    if any(unread) and not _leaves_input(deconvolution, unread):
        return "the crop takes whole input rows or columns away, and how many there are is not known or none is left."
    strides = ints(deconvolution, "strides", (1, 1)) * 2
    pads = tuple(pad - stride * rows for pad, stride, rows in zip(pads, strides, unread, strict=True))
    if any(pad >= side for pad, side in zip(pads, kernel * 2, strict=True)):
        return "the crop goes beyond the kernel, which backends do not accept as padding."
    if any(unread):
        _slice_input(graph, deconvolution, unread)
    deconvolution.attributes["pads"] = ir.AttrInt64s("pads", pads)
    deconvolution.attributes.pop("auto_pad", None)
    deconvolution.outputs[0].shape = crop.outputs[0].shape
    bypass(graph, crop, deconvolution.outputs[0])
    return None


def _unread(deconvolution: ir.Node, pads: tuple[int, ...]) -> tuple[int, ...]:
    """Input rows and columns (top, left, bottom, right) that write only into what `pads` crops away."""
    kernel, strides = _kernel_shape(deconvolution), ints(deconvolution, "strides", (1, 1))
    dilations, extra = ints(deconvolution, "dilations", (1, 1)), ints(deconvolution, "output_padding", (0, 0))
    assert kernel is not None
    reach = [(side - 1) * dilation + 1 for side, dilation in zip(kernel, dilations, strict=True)]
    beyond = (pads[0] - reach[0], pads[1] - reach[1], pads[2] - extra[0] - reach[0], pads[3] - extra[1] - reach[1])
    return tuple(
        min(max(0, rows // stride + 1), pad // stride)  # a stride beyond the kernel leaves rows between its copies
        for rows, pad, stride in zip(beyond, pads, strides * 2, strict=True)
    )


def _leaves_input(deconvolution: ir.Node, unread: tuple[int, ...]) -> bool:
    known = shape_of(deconvolution.inputs[0])
    return known is not None and all(known[2 + i] > unread[i] + unread[i + 2] for i in range(2))


def _slice_input(graph: ir.Graph, deconvolution: ir.Node, amounts: tuple[int, ...]) -> None:
    """Take (top, left, bottom, right) rows and columns off what `deconvolution` reads."""
    value = deconvolution.inputs[0]
    assert value is not None
    top, left, bottom, right = amounts
    ends = [-bottom or _OPEN_END, -right or _OPEN_END]
    bounds = [np.array(numbers, np.int64) for numbers in ([top, left], ends, list(_SPATIAL))]
    name = f"{deconvolution.name}.input_crop"
    constants = [
        add_initializer(graph, f"{name}.{part}", array)
        for part, array in zip(("starts", "ends", "axes"), bounds, strict=True)
    ]
    crop = ir.Node("", "Slice", [value, *constants], name=name)
    output, known = crop.outputs[0], shape_of(value)
    output.name, output.type = name, value.type
    if known is not None:
        output.shape = ir.Shape((*known[:2], known[2] - top - bottom, known[3] - left - right))
    graph.insert_before(deconvolution, crop)
    deconvolution.replace_input_with(0, output)


def _crop_amounts(crop: ir.Node, deconvolution: ir.Node) -> tuple[int, int, int, int] | str:
    """(top, left, bottom, right) rows and columns that the Slice removes, or why that is not known."""
    parameters = list(crop.inputs)[1:] + [None] * (5 - len(crop.inputs))
    if any(value is not None and not is_constant(value) for value in parameters):
        return "the crop is computed at run time."
    starts, ends, axes, steps = (None if (array := constant(v)) is None else array.tolist() for v in parameters)
    if starts is None or ends is None:
        return "the crop has no constant bounds."
    axes = range(len(starts)) if axes is None else [axis % 4 for axis in axes]
    if steps is not None and any(step != 1 for step in steps):
        return "the slice skips or reverses rows, so it is not a crop."
    before, after = {2: 0, 3: 0}, {2: 0, 3: 0}
    for axis, start, end in zip(axes, starts, ends, strict=True):
        length = _output_length(deconvolution, axis)
        removed = _removed(start, end, length)
        if removed is None:
            return "the crop counts from an edge whose position is not known: the graph has no static shape."
        if axis not in _SPATIAL:
            if removed != (0, 0):
                return "the slice takes away pictures or classes, not only rows and columns."
            continue
        if length is not None and sum(removed) >= length:
            return "the crop leaves no rows or no columns."
        before[axis], after[axis] = removed
    return before[2], before[3], after[2], after[3]


def _removed(start: int, end: int, length: int | None) -> tuple[int, int] | None:
    """How many entries a slice takes off each end of an axis; None when that needs the unknown length."""
    if length is not None:
        first, stop, _ = slice(start, end).indices(length)
        return first, length - max(first, stop)
    if start < 0 or (0 <= end < _OPEN_END):
        return None
    return start, (-end if end < 0 else 0)


def _output_length(deconvolution: ir.Node, axis: int) -> int | None:
    known = shape_of(deconvolution.inputs[0])
    if known is None or axis not in _SPATIAL:
        whole = shape_of(deconvolution.outputs[0])
        return None if whole is None else whole[axis]
    kernel = _kernel_shape(deconvolution)
    if kernel is None:
        return None
    index = axis - 2
    pads = ints(deconvolution, "pads", (0, 0, 0, 0))
    stride = ints(deconvolution, "strides", (1, 1))[index]
    dilation = ints(deconvolution, "dilations", (1, 1))[index]
    extra = ints(deconvolution, "output_padding", (0, 0))[index]
    return stride * (known[axis] - 1) + extra + (kernel[index] - 1) * dilation + 1 - pads[index] - pads[index + 2]


def _kernel_shape(deconvolution: ir.Node) -> tuple[int, ...] | None:
    shape = shape_of(deconvolution.inputs[1])
    return None if shape is None else shape[2:]
