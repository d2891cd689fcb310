"""What one export will do: the bundle read, the graph chosen, the place looked at, nothing written yet."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fcnedge.runtime import Bundle
from fcnedge.runtime.errors import UserError

from .deepstream import DeepStreamPlan, bundled_cache, check_scores, write_deepstream
from .folder import check_export, safe_name
from .onnx_file import OnnxPlan, check_file, write_onnx
from .result import ExportResult
from .triton import TritonPlan, engine_of, write_triton
from .trtexec import TrtexecPlan, check_versions

if TYPE_CHECKING:
    from .command import ExportOptions

_DEFAULT_BATCH = {"triton": 8, "deepstream": 1}


def plan_export(options: ExportOptions) -> tuple[Any, Callable[[Any, Callable[[str], None]], ExportResult]]:
    """The checked plan of one export and the function that carries it out. Raises UserError for whatever is wrong.

    options: as check_options has passed them.
    """
    bundle = Bundle.load(options.bundle)
    precision = options.precision or "fp32"
    batch = options.batch or _DEFAULT_BATCH.get(options.kind, 1)
    if options.kind == "trtexec":
        versions = check_versions(options.version, options.calibration_cache, precision)
        output = options.output or Path(f"{safe_name(bundle.manifest.name)}.{precision}.engine")
        cache, timing = options.calibration_cache, options.timing_cache
        return TrtexecPlan(bundle, output, precision, versions, cache, timing, options.workspace), _say
    if options.output is None:
        raise UserError(f"export {options.kind} writes files; say where with -o.")
    _check_outside(bundle, options.output)
    if options.kind == "onnx":
        floats = options.float_input
        onnx = OnnxPlan(bundle, options.output, precision, options.target, options.layout, floats)
        _check_target(bundle, precision, options.target)
        check_file(options.output, force=options.force)
        return onnx, write_onnx
    if options.kind == "deepstream":
        check_scores(bundle)
        cache = (options.calibration_cache or bundled_cache(bundle)) if precision == "int8" else None
        check_export(options.output, force=options.force)
        return DeepStreamPlan(bundle, options.output, precision, batch, cache, options.workspace), write_deepstream
    engine = None if options.engine is None else engine_of(bundle, options.engine)
    precision = engine[1].precision if engine else precision
    _check_target(bundle, precision, options.target)
    triton = TritonPlan(
        bundle, options.output, precision, options.target, engine, batch, options.instances, options.device
    )
    check_export(triton.output, force=options.force)
    return triton, write_triton


def _say(plan: TrtexecPlan, start: Callable[[str], None]) -> ExportResult:
    """Trtexec's export is its result: lines to print."""
    return plan.result


def _check_outside(bundle: Bundle, output: Path) -> None:
    """Raise UserError for a place inside the bundle: --force would replace the graph that is exported."""
    if output.resolve().is_relative_to(bundle.path.resolve()):
        raise UserError(
            f"{output} lies in the bundle {bundle.path}, which holds its own files only; choose another place for -o."
        )


def _check_target(bundle: Bundle, precision: str, target: str | None) -> None:
    """Raise UserError when the bundle has no graph of its own for that target."""
    graph = bundle.model(precision, target)
    if target is not None and bundle.manifest.files[graph.relative_to(bundle.path).as_posix()].target != target:
        raise UserError(f"{bundle.path} holds no {precision} graph for {target}; leave out --target, or choose int8.")
