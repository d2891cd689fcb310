"""Which layers must stay float32 in a float16 graph, and why: overflow found in calibration, pixels, no such operator.

float16 ends at 65504. VGG on mean-subtracted 0-255 pixels is the real case: its weights were trained to such inputs,
and activations grow from layer to layer. An overflow is infinite, then NaN, and the mask is one class everywhere.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir

from fcnedge.runtime.errors import UserError

from ..fusion.graph import constant, is_constant
from .activation_range import TensorRanges, largest_magnitude

FLOAT16_MAX = 65504.0
OVERFLOW_LIMIT = FLOAT16_MAX / 2
"""A tensor seen above this stays float32: pictures to come go further than the few hundred of the calibration."""
PIXELS = "it prepares the pixels, whose differences from the mean float16 would round."
_LAYERS = ("Conv", "ConvTranspose", "MatMul", "Gemm")


@dataclass(frozen=True)
class KeptLayer:
    """A node left in float32, and why in one sentence."""

    node: str
    reason: str


def float32_layers(model: ir.Model, ranges: TensorRanges, keep: Collection[str] = ()) -> tuple[KeptLayer, ...]:
    """Nodes that must stay float32, in the order of the graph.

    These are what prepares the pixels, what makes or reads a tensor beyond OVERFLOW_LIMIT, what holds a weight beyond
    65504, what has no float16 form, and the nodes named in `keep`. Raises UserError for an unknown name in `keep`, for
    nodes that share a name, and for a tensor whose range is missing, NaN or infinite.
    """
    names = node_names(model)
    unknown = sorted(set(keep) - names)
    if unknown:
        raise UserError(f"the graph has no node {unknown[0]} to keep in float32; use a name that the graph has.")
    opset = model.opset_imports[""]
    reasons: dict[str, str] = {}
    for node in model.graph:
        reason = _reason(node, ranges, opset, keep, reasons)
        if reason is not None:
            reasons[str(node.name)] = reason
    return tuple(KeptLayer(node, reason) for node, reason in reasons.items())


def node_names(model: ir.Model) -> set[str]:
    """Names of all nodes. Raises UserError when one is missing or taken twice: reports could not tell them apart."""
    names: set[str] = set()
    for node in model.graph:
        if not node.name or node.name in names:
            raise UserError(
                f"two nodes of the graph are called {node.name!r}, where each needs its own name; "
                f"build the model again."
            )
        names.add(node.name)
    return names


def input_kinds(schema: onnx.defs.OpSchema, count: int) -> list[str]:
    """Type variable, or fixed type, of each of `count` inputs; the last formal input may be variadic."""
    kinds = [formal.type_str for formal in schema.inputs]
    return [kinds[min(index, len(kinds) - 1)] for index in range(count)]


def _reason(
    node: ir.Node, ranges: TensorRanges, opset: int, keep: Collection[str], earlier: Mapping[str, str]
) -> str | None:
    if node.name in keep:
        return "asked for."
    if _prepares_pixels(node, earlier):
        return PIXELS
    if _has_no_float16(node, opset):
        return f"{node.op_type} has no float16 form."
    for value in (*node.inputs, *node.outputs):
        if value is None or value.dtype != ir.DataType.FLOAT:
            continue
        if is_constant(value):
            kind, magnitude, limit = "weight", _largest_weight(value), FLOAT16_MAX
        else:
            kind, magnitude, limit = "tensor", largest_magnitude(ranges, str(value.name)), OVERFLOW_LIMIT
        if not magnitude <= limit:  # so written for NaN
            return f"the {kind} {value.name} reaches {magnitude:.6g}, beyond {limit:g}."
    return None


def _prepares_pixels(node: ir.Node, earlier: Mapping[str, str]) -> bool:
    """Whether nothing but the picture and its preparation flows into `node`, and `node` is no layer yet."""
    if node.op_type in _LAYERS:
        return False
    given = [value for value in node.inputs if value is not None and not is_constant(value)]
    producers = [producer for value in given if (producer := value.producer()) is not None]
    return bool(given) and all(earlier.get(str(producer.name)) == PIXELS for producer in producers)


def _has_no_float16(node: ir.Node, opset: int) -> bool:
    schema = onnx.defs.get_schema(node.op_type, opset, node.domain)
    allowed = {constraint.type_param_str: constraint.allowed_type_strs for constraint in schema.type_constraints}
    return any(
        value is not None
        and value.dtype == ir.DataType.FLOAT
        and kind in allowed
        and "tensor(float16)" not in allowed[kind]
        for value, kind in zip(node.inputs, input_kinds(schema, len(node.inputs)), strict=True)
    )


def _largest_weight(value: ir.Value) -> float:
    array = constant(value)
    assert array is not None
    return float(np.abs(array).max(initial=0))
