"""How a precision is asked of a library: by the graph's own types, by builder flags, or by a calibration cache.

Since TensorRT 11 precision is in the graph alone: of an untyped graph it silently builds FP32. So wherever networks can
be strongly typed they are. Flags remain for TensorRT 8.5 to 9, and for the deep learning accelerator (DLA) up to
TensorRT 10, whose INT8 takes its ranges from a calibration cache and not from QuantizeLinear nodes.
"""

from __future__ import annotations

from dataclasses import dataclass

from fcnedge.runtime.errors import UserError

from .library import Library


@dataclass(frozen=True)
class Recipe:
    """What to parse and what to allow.

    graph: precision of the bundle's graph that is parsed; route: one of ROUTES in fcnedge.runtime.engine_sidecar;
    flags: names of BuilderFlag members.
    """

    graph: str
    route: str
    flags: tuple[str, ...] = ()

    @property
    def strongly_typed(self) -> bool:
        """Whether the network is created strongly typed."""
        return self.route == "strongly typed"


_FLAGS = {"fp32": (), "fp16": ("FP16",), "int8": ("INT8", "FP16")}


def choose_recipe(library: Library, precision: str, *, dla: bool, calibration_cache: bool) -> Recipe:
    """How `library` is asked for `precision`. Raises UserError where it has no such way."""
    if dla and precision == "fp32":
        raise UserError("the DLA computes in FP16 and INT8, not in FP32; choose --precision fp16 or int8.")
    if calibration_cache and precision != "int8":
        raise UserError(f"a calibration cache gives INT8 ranges, but --precision is {precision}; choose int8.")
    if calibration_cache and not library.has_calibrators:
        raise UserError(
            f"{library.title} has no calibrators and cannot read a calibration cache; leave it out, the bundle's INT8 "
            "graph carries the same ranges."
        )
    if calibration_cache or (dla and precision == "int8" and library.has_calibrators):
        return Recipe("fp32", "calibration cache", _FLAGS["int8"])
    if dla and library.has_precision_flags:
        return Recipe("fp32", "builder flags", _FLAGS[precision])
    if library.has_strong_typing:
        return Recipe(precision, "strongly typed")
    return Recipe(precision, "builder flags", _FLAGS[precision])
