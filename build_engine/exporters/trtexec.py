"""`fcn-build export trtexec`: the command lines that compile a bundle's graph where fcnedge is not installed.

They ask for a precision as `fcn-build engine` does (engines/recipe.py): TensorRT 8.5 by flags, 10 by the graph's own
types, which --stronglyTyped makes binding, 11 by the same types and no flag, for there is none left. A calibration
cache needs flags, and 11 has no calibrators. --buildOnly became --skipInference with 8.6.
https://docs.nvidia.com/deeplearning/tensorrt/11.4.1/api/migration/tensorrt-10x-to-11x-trtexec.html
https://docs.nvidia.com/deeplearning/tensorrt/10.16.1/api/tensorrt-8x-to-10x-trtexec.html
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from fcnedge.runtime import Bundle
from fcnedge.runtime.errors import UserError

from .result import ExportResult

VERSIONS = ("8.5", "10", "11")
_FLAGS = {"fp32": (), "fp16": ("--fp16",), "int8": ("--int8", "--fp16")}
_NOT_CARRIED = (
    "The checks of fcn-build engine: types before compiling, precisions obtained after it; look at the layers with "
    "--profilingVerbosity=detailed --dumpLayerInfo.",
    "The sidecar: fcnedge runs no engine without one, so this engine is for other programs.",
)


@dataclass(frozen=True)
class TrtexecPlan:
    """Checked options. output: engine file to name; workspace: MiB; timing: timing cache to keep."""

    bundle: Bundle
    output: Path
    precision: str
    versions: tuple[str, ...]
    cache: Path | None
    timing: Path | None
    workspace: int

    @property
    def result(self) -> ExportResult:
        """The command lines. Raises BundleError when the bundle has no such graph."""
        graphs = {self.bundle.model(*_graph_of(self, version)).name for version in self.versions}
        return ExportResult(
            kind="trtexec",
            bundle=str(self.bundle.path),
            precision=self.precision,
            graph=", ".join(sorted(graphs)),
            commands={version: shlex.join(_words(self, version)) for version in self.versions},
            not_carried=(*_NOT_CARRIED, *_head_left(self.bundle)),
        )


def check_versions(asked: str, cache: Path | None, precision: str) -> tuple[str, ...]:
    """The releases to write for. Raises UserError where a calibration cache fits neither precision nor release."""
    if cache is None:
        return VERSIONS if asked == "all" else (asked,)
    if precision != "int8":
        raise UserError(f"a calibration cache gives INT8 ranges, but --precision is {precision}; choose int8.")
    if asked == "11":
        raise UserError(
            "TensorRT 11 has no calibrators and cannot read a calibration cache; leave it out, the bundle's INT8 graph "
            "carries the same ranges."
        )
    return VERSIONS[:-1] if asked == "all" else (asked,)


def _graph_of(plan: TrtexecPlan, version: str) -> tuple[str, str | None]:
    """Precision and target of the graph to compile."""
    if plan.cache is not None:
        return "fp32", None
    return plan.precision, None if version == "8.5" else "tensorrt"


def _words(plan: TrtexecPlan, version: str) -> list[str]:
    graph = plan.bundle.model(*_graph_of(plan, version))
    words = ["trtexec", f"--onnx={graph}", f"--saveEngine={plan.output}"]
    if version == "8.5" or plan.cache is not None:
        words += _FLAGS[plan.precision]
        words += [] if plan.cache is None else [f"--calib={plan.cache}"]
    elif version == "10":
        words.append("--stronglyTyped")
    words.append(f"--memPoolSize=workspace:{plan.workspace}")  # MiB, in every release
    words += [] if plan.timing is None else [f"--timingCacheFile={plan.timing}"]
    return [*words, "--buildOnly" if version == "8.5" else "--skipInference"]


def _head_left(bundle: Bundle) -> tuple[str, ...]:
    if bundle.manifest.head.kind == "labels":
        return ()
    return (
        "The head: the engine gives scores; for labels, fcn-build export onnx first and compile that file with the "
        "same words.",
    )
