"""The FP16 graph: pixels prepared in float32, every layer in float16 but those that overflow, scores in float16."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import onnx_ir as ir
from onnx_ir.passes import common as passes

from .activation_range import TensorRanges
from .float32_layers import KeptLayer, float32_layers
from .float_types import FloatTypes, assign_float_types
from .pixels import cast_pixels_first


@dataclass(frozen=True)
class Fp16Report:
    """What became float16, and what stayed float32 and why."""

    types: FloatTypes
    float32: tuple[KeptLayer, ...]


def to_fp16(model: ir.Model, *, ranges: TensorRanges, keep_fp32: Collection[str] = ()) -> Fp16Report:
    """Turn a fused float32 graph into its float16 form, in place.

    ranges: of every float activation; keep_fp32: names of nodes to leave in float32.
    Ensures: input `image` uint8 as before; output `scores` float16 (float32 where calibration saw scores beyond half of
    float16's 65504), or `labels` uint8; opset and ir_version as before; no node mixes float types.
    Raises UserError for a range that is missing, NaN or infinite and for an unknown name.
    """
    prepare(model)
    kept = float32_layers(model, ranges, keep_fp32)
    types = assign_float_types(model, {layer.node for layer in kept}, ranges)
    return Fp16Report(types, kept)


def prepare(model: ir.Model) -> None:
    """Put `model` into the form that typing wants: pixels cast first, constants as initialisers, all types known."""
    cast_pixels_first(model.graph)
    passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    passes.ShapeInferencePass()(model)
