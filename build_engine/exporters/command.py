"""`fcn-build export`: the command line, which of its flags belong to which export, and the run."""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from fcnedge.runtime.command import Progress, write_json
from fcnedge.runtime.errors import UserError
from fcnedge.runtime.manifest import GRAPH_TARGETS, PRECISIONS
from fcnedge.runtime.options import option

from ..engines.command import DEFAULT_WORKSPACE_MB
from .trtexec import VERSIONS

KINDS = ("triton", "deepstream", "trtexec", "onnx")
LAYOUTS = ("nhwc", "nchw")
DEVICES = ("auto", "cpu", "gpu")
_ONLY_FOR = {
    "target": ("onnx", "triton"),
    "layout": ("onnx",),
    "float_input": ("onnx",),
    "engine": ("triton",),
    "batch": ("triton", "deepstream"),
    "instances": ("triton",),
    "device": ("triton",),
    "version": ("trtexec",),
    "calibration_cache": ("deepstream", "trtexec"),
    "timing_cache": ("trtexec",),
    "workspace": ("deepstream", "trtexec"),
    "force": ("triton", "deepstream", "onnx"),
}
_MOST = 1024


@dataclass(frozen=True)
class ExportOptions:
    """Command line of fcn-build export."""

    kind: str = option("what to export to", positional=True, choices=KINDS)
    bundle: Path = option("bundle folder", positional=True)
    output: Path | None = option(
        "what to write: a model repository (triton), a folder (deepstream), an .onnx file (onnx); of trtexec, the "
        "engine file that the command lines name",
        None,
        short="-o",
        metavar="OUT",
    )
    precision: str | None = option("precision of the graph; default: fp32, or the engine's", None, choices=PRECISIONS)
    target: str | None = option(
        "INT8: the graph for x86 CPUs with VNNI, or for TensorRT 10 and later (onnx, triton)",
        None,
        choices=GRAPH_TARGETS,
    )
    layout: str = option("layout of the input (onnx)", "nhwc", choices=LAYOUTS)
    float_input: bool = option("take the pixels, 0 to 255, as float32 instead of uint8 (onnx)", False)
    engine: Path | None = option("serve this engine of the bundle instead of a graph (triton)", None, metavar="FILE")
    batch: int | None = option("most pictures at a time; default: 8 (triton), 1 (deepstream)", None, metavar="N")
    instances: int = option("copies of the model that run side by side (triton)", 1, metavar="N")
    device: str = option("where they run; auto: on GPUs where there are any (triton)", "auto", choices=DEVICES)
    version: str = option("TensorRT release (trtexec)", "all", choices=(*VERSIONS, "all"))
    calibration_cache: Path | None = option(
        "INT8 ranges from this file (deepstream; trtexec up to TensorRT 10)", None, metavar="FILE"
    )
    timing_cache: Path | None = option("reuse kernel timings between builds (trtexec)", None, metavar="FILE")
    workspace: int = option(
        "most scratch memory of one layer, in MiB (deepstream, trtexec)", DEFAULT_WORKSPACE_MB, metavar="MIB"
    )
    force: bool = option("replace an export that is there already", False)
    dry_run: bool = option("check bundle and options, write nothing", False)
    json: Path | None = option("write the result as JSON", None, metavar="FILE")


def run(options: ExportOptions) -> None:
    """Export and report. Raises UserError."""
    from .plan import plan_export

    check_options(options)
    plan, write = plan_export(options)
    result = replace(plan.result, dry_run=options.dry_run)
    if not options.dry_run:
        progress = Progress()
        try:
            result = write(plan, lambda step: progress(f"export {options.kind}: {step}"))
        finally:
            progress.close()
    if options.json is not None:
        write_json(result, options.json)
    sys.stdout.write(f"{result.text()}\n")


def check_options(options: ExportOptions) -> None:
    """Raise UserError for a flag of another export, a number that is none, and flags that exclude each other."""
    for field in dataclasses.fields(options):
        kinds = _ONLY_FOR.get(field.name, KINDS)
        if options.kind not in kinds and getattr(options, field.name) != field.default:
            name = f"--{field.name.replace('_', '-')}"
            raise UserError(f"{name} is for export {' and '.join(kinds)}, not for {options.kind}; leave it out.")
    for name in ("batch", "instances", "workspace"):
        value = getattr(options, name)
        most = 1 << 20 if name == "workspace" else _MOST
        if value is not None and not 1 <= value <= most:
            raise UserError(f"--{name} is {value}; it must be from 1 to {most}.")
    if options.calibration_cache is not None and not options.calibration_cache.is_file():
        raise UserError(f"there is no file {options.calibration_cache}; write one with fcn-calibrate ranges --cache.")
    if options.kind == "deepstream" and options.calibration_cache is not None and options.precision != "int8":
        raise UserError(
            f"a calibration cache gives INT8 ranges, but --precision is {options.precision or 'fp32'}; choose int8."
        )
    if options.engine is not None:
        _check_alone(options, "engine", ("precision", "target", "batch"))
    if options.kind == "triton" and options.engine is not None and options.device == "cpu":
        raise UserError("an engine runs on GPUs alone; leave out --device cpu.")
    if options.kind == "triton" and options.target == "tensorrt":
        raise UserError(
            "ONNX Runtime, which Triton runs a graph with, loses most of the mask on TensorRT's INT8 graph; leave out "
            "--target, or compile an engine and pass it as --engine."
        )


def _check_alone(options: ExportOptions, name: str, others: tuple[str, ...]) -> None:
    for other in others:
        if getattr(options, other) is not None:
            raise UserError(f"--{name} says already what --{other} would; leave out --{other}.")
