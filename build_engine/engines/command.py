"""`fcn-build engine`: from the command line's words to an engine and its sidecar."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fcnedge.runtime.command import table, write_json
from fcnedge.runtime.engine_sidecar import TARGETS, EngineSidecar
from fcnedge.runtime.manifest import PRECISIONS
from fcnedge.runtime.options import option

if TYPE_CHECKING:
    from .build import EnginePlan

# The largest scratch memory met is 146 MB (FCN-8s VGG16 at 512x512, FP32, TensorRT-RTX 1.7); lite0's is 29 MB.
# TensorRT's own default is all of the GPU's memory, which on a Jetson is the system's too: there it ends in the
# kernel's out-of-memory killer.
DEFAULT_WORKSPACE_MB = 256


@dataclass(frozen=True)
class EngineOptions:
    """Command line of fcn-build engine."""

    bundle: Path = option("bundle folder", positional=True)
    target: str = option("library that compiles it", "tensorrt", choices=TARGETS)
    precision: str = option("precision of the engine; the bundle must hold that graph", "fp16", choices=PRECISIONS)
    output: Path | None = option(
        "engine file to write; default: engines/ in the bundle, named after library and GPU",
        None,
        short="-o",
        metavar="FILE",
    )
    workspace: int = option("most scratch memory of one layer, in MiB", DEFAULT_WORKSPACE_MB, metavar="MIB")
    sm: str | None = option(
        "compute capabilities to compile for, such as 8.6,8.9,12.0 (TensorRT-RTX); default: all from 8.0 on", None
    )
    dla: bool = option("compile for the Jetson's deep learning accelerator, with the GPU for what it cannot do", False)
    calibration_cache: Path | None = option(
        "INT8 ranges from this file instead of from the graph (TensorRT up to 10)", None, metavar="FILE"
    )
    timing_cache: Path | None = option("reuse kernel timings between builds (TensorRT)", None, metavar="FILE")
    force: bool = option("replace an engine that is there already", False)
    dry_run: bool = option("read the graph and check the options, compile nothing", False)
    json: Path | None = option("write the result as JSON", None, metavar="FILE")


@dataclass(frozen=True)
class EngineResult:
    """path: of the engine; sidecar: what was written beside it."""

    path: str
    sidecar: EngineSidecar

    def text(self) -> str:
        """The result as a text table."""
        sidecar = self.sidecar
        obtained = "not inspected"
        if sidecar.layers is not None:
            counts = ", ".join(f"{count} {dtype}" for dtype, count in sorted(sidecar.layers.items()))
            obtained = f"{counts} (layers by the type they take; from the {sidecar.inspected_by})"
        return table(
            [
                ("engine", self.path),
                ("library", f"{sidecar.library} {sidecar.version}"),
                ("for", f"{sidecar.gpu or 'compute capability'} {', '.join(sidecar.compute_capabilities)}"),
                ("asked", f"{sidecar.precision}, {sidecar.route}{', DLA' if sidecar.dla else ''}"),
                ("obtained", obtained),
                ("size", f"{sidecar.bytes / 1e6:,.1f} MB"),
                ("compiled in", f"{sidecar.seconds:.1f} s"),
            ]
        )


def run(options: EngineOptions) -> None:
    """Compile, write and report. Raises UserError."""
    from .build import build_engine, plan_engine

    plan = plan_engine(options)
    if options.dry_run:
        sys.stdout.write(f"{_intention(plan)}\n")
        return
    path, sidecar = build_engine(plan)
    result = EngineResult(str(path), sidecar)
    if options.json is not None:
        write_json(result, options.json)
    sys.stdout.write(f"{result.text()}\n")


def _intention(plan: EnginePlan) -> str:
    targets, route = ", ".join(plan.compute_capabilities), plan.configuration.settings.recipe.route
    return (
        f"would compile {plan.graph} ({plan.parsed.network.num_layers} layers, {route}) with {plan.library.title} "
        f"for {targets} into {plan.output}"
    )
