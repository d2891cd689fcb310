"""Typed graphs: precision is written into the ONNX, as FP16 types or INT8 Q/DQ nodes, and never left to a flag."""

from .float32_layers import KeptLayer
from .fp16 import Fp16Report, to_fp16
from .int8 import Int8Report, to_int8
from .placement import Exclusion, Placement, QuantisedInput, QuantisedLayer, place
from .simulation import open_simulated

__all__ = [
    "Exclusion",
    "Fp16Report",
    "Int8Report",
    "KeptLayer",
    "Placement",
    "QuantisedInput",
    "QuantisedLayer",
    "open_simulated",
    "place",
    "to_fp16",
    "to_int8",
]
