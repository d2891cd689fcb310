"""The last upsampling as a Resize: what the head's geometry is for each of ONNX's coordinate conventions.

Row x of the output reads the scores at the coordinate u(x), clipped to them, interpolated between two rows:

    half_pixel, pytorch_half_pixel    u = (x + 0.5) / s - 0.5    the head's own with offset 0
    asymmetric                        u = x / s                  … with offset (s - 1) / 2
    align_corners                     u = x · (h - 1) / (H - 1)  points (H - 1) / (h - 1) apart, no whole stride

The head reads (x + 0.5 + offset) / s - 0.5 with a whole stride s, so align_corners stays in the graph.
Source: the operator Resize in https://onnx.ai/onnx/operators/onnx__Resize.html.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from .graph import constant, is_constant, shape_of

_HALF_PIXEL = ("half_pixel", "pytorch_half_pixel")
_SCALES = 2


def resize_tail(node: ir.Node, input_size: tuple[int, int]) -> tuple[int, float] | str:
    """(stride, offset of rows and columns) of a Resize that enlarges scores to `input_size`, or why it has none."""
    mode, coordinates = _word(node, "mode", "nearest"), _word(node, "coordinate_transformation_mode", "half_pixel")
    if mode != "linear":
        return f"its interpolation is {mode}, not linear."
    if coordinates == "align_corners":
        return "align_corners puts the points a fractional number of pixels apart; the runtime's head has whole ones."
    if coordinates not in (*_HALF_PIXEL, "asymmetric"):
        return f"its coordinates are {coordinates}, which the runtime's head does not have."
    scores, full = shape_of(node.inputs[0]), shape_of(node.outputs[0])
    if scores is None or full is None:
        return "the size of its input or output is not known."
    if len(full) != 4 or full[:2] != scores[:2] or full[2:] != input_size:
        return f"its output has shape {full} where the input has {input_size[1]}x{input_size[0]} pixels."
    stride = full[2] // scores[2]
    if stride < 2 or full[2:] != (stride * scores[2], stride * scores[3]):
        return f"it enlarges {scores[3]}x{scores[2]} to {full[3]}x{full[2]}, by no whole number of pixels."
    if not _scales_are(node, stride):
        return "its scales are not those of its sizes."
    return stride, 0.0 if coordinates in _HALF_PIXEL else (stride - 1) / 2


def _scales_are(node: ir.Node, stride: int) -> bool:
    """Whether what the node says of its scales, if anything, is 1, 1, stride, stride."""
    scales = node.inputs[_SCALES] if len(node.inputs) > _SCALES else None
    if scales is None:
        return True
    if not is_constant(scales) or (array := constant(scales)) is None:
        return False
    expected = np.array([1, 1, stride, stride], np.float32)
    axes = node.attributes.get("axes")
    if axes is not None:
        expected = expected[[axis % 4 for axis in axes.as_ints()]]
    return array.size == 0 or np.array_equal(array, expected)


def _word(node: ir.Node, name: str, default: str) -> str:
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.as_string()
