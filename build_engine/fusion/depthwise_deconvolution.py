"""Rule 2: a dense deconvolution that mixes no classes becomes a depthwise one: C times fewer multiply-adds.

Bilinear upsampling kernels w (C, C, k, k) are diagonal: w[a, b] = 0 for a ≠ b. Then

    Σ_a x[a] * w[a, b] = x[b] * w[b, b]

which is ConvTranspose with group = C and kernel (C, 1, k, k). Only when every off-diagonal entry is exactly zero; a
learned dense kernel stays dense and the report says so.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from .graph import add_initializer, constant, integer, is_constant, shape_of
from .report import RuleLog, RuleReport


def depthwise_deconvolution(graph: ir.Graph) -> RuleReport:
    """Turn every class-diagonal ConvTranspose into its grouped form, in place."""
    log = RuleLog()
    for node in list(graph):
        if node.op_type != "ConvTranspose" or integer(node, "group", 1) != 1:
            continue
        reason = _make_depthwise(graph, node)
        if reason is None:
            log.applied += 1
        elif reason:
            log.refuse(node.name, reason)
    return log.report()


def _make_depthwise(graph: ir.Graph, node: ir.Node) -> str | None:
    shape = shape_of(node.inputs[1])
    if shape is None or not is_constant(node.inputs[1]):
        return "its kernel is not a constant."
    if shape[0] != shape[1]:
        return f"it maps {shape[0]} channels to {shape[1]}."
    if shape[0] == 1:
        return ""
    kernel = constant(node.inputs[1])
    assert kernel is not None
    assert node.inputs[1] is not None
    largest = _largest_off_diagonal(kernel)
    if largest != 0:
        return f"its kernel mixes classes: the largest off-diagonal weight is {largest:.3g} (a learned kernel)."
    channels = np.arange(shape[0])
    diagonal = np.ascontiguousarray(kernel[channels, channels][:, None])
    node.replace_input_with(1, add_initializer(graph, f"{node.inputs[1].name}.depthwise", diagonal))
    node.attributes["group"] = ir.AttrInt64("group", shape[0])
    return None


def _largest_off_diagonal(kernel: np.ndarray) -> float:
    """max |w[a, b]| over a ≠ b; NaN counts as mixing."""
    off_diagonal = kernel[~np.eye(kernel.shape[0], dtype=bool)]
    largest = float(np.abs(off_diagonal).max(initial=0))
    return float("inf") if np.isnan(largest) else largest
