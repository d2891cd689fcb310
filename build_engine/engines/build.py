"""Bundle → engine: choose the way, parse, check, compile, inspect, write."""

from __future__ import annotations

import importlib.metadata
import threading
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from fcnedge.runtime import Bundle
from fcnedge.runtime.engine_sidecar import ENGINES_FOLDER, EngineSidecar, engine_name
from fcnedge.runtime.errors import UserError

from .cache_calibrator import read_calibration_cache
from .compile import Configuration, Settings, compile_network, configure
from .engine_file import (
    EngineFileFacts,
    check_engine_output,
    write_engine,
    write_timing_cache,
)
from .gpu import Gpu, current_gpu
from .layers import LayerTypes, check_obtained, inspect_layers
from .library import Library, open_library
from .library_log import library_log
from .network import ParsedNetwork, check_interface, check_types, parse_graph
from .recipe import choose_recipe

if TYPE_CHECKING:
    from .command import EngineOptions

_CALIBRATION_CACHE = "calibration.cache"
_OLDEST_TOGETHER = 8.0


@dataclass(frozen=True)
class EnginePlan:
    """Checked options and a parsed graph: everything but the compiling.

    compute_capabilities: as the sidecar will have them; configuration has those that the library must be told.
    """

    options: EngineOptions
    bundle: Bundle
    library: Library
    log: Any
    cancelled: threading.Event
    gpu: Gpu | None
    compute_capabilities: tuple[str, ...]
    configuration: Configuration
    graph: Path
    parsed: ParsedNetwork
    output: Path


def plan_engine(options: EngineOptions) -> EnginePlan:
    """Check options, bundle and library, and parse the graph. Raises UserError, one sentence, for whatever is wrong."""
    if options.workspace < 1:
        raise UserError(f"--workspace is {options.workspace}; it must be 1 MiB or more.")
    bundle = Bundle.load(options.bundle)
    library = open_library(options.target)
    targets = _targets(library, options.sm)
    with_cache = options.calibration_cache is not None
    recipe = choose_recipe(library, options.precision, dla=options.dla, calibration_cache=with_cache)
    graph = bundle.model(recipe.graph, "tensorrt" if recipe.strongly_typed else None)
    calibration = None
    if recipe.route == "calibration cache":
        calibration = read_calibration_cache(options.calibration_cache or _bundled_cache(bundle), library)
    gpu = current_gpu()
    log = library_log(library.module, cancelled := threading.Event())
    parsed = parse_graph(library, log, graph, strongly_typed=recipe.strongly_typed)
    if recipe.strongly_typed:
        check_types(library, parsed, options.precision, graph)
    check_interface(parsed, bundle.manifest, graph)
    capabilities = targets or (_at_hand(library, gpu),)
    name = engine_name(options.precision, library.name, library.version, capabilities, dla=options.dla)
    output = options.output or bundle.path / ENGINES_FOLDER / name
    check_engine_output(output, force=options.force)
    settings = Settings(recipe, options.workspace, targets, options.dla, calibration, options.timing_cache)
    configuration = configure(library, parsed, settings)
    return EnginePlan(options, bundle, library, log, cancelled, gpu, capabilities, configuration, graph, parsed, output)


def build_engine(plan: EnginePlan) -> tuple[Path, EngineSidecar]:
    """Compile and write: the engine's path and its sidecar. Raises UserError; then nothing was written."""
    started = perf_counter()
    compiled = compile_network(plan.library, plan.log, plan.parsed, plan.configuration, plan.cancelled)
    seconds = perf_counter() - started
    layers = inspect_layers(plan.library, plan.log, compiled.plan, has_gpu=plan.gpu is not None)
    check_obtained(plan.library, layers, plan.options.precision)
    sidecar = write_engine(compiled.plan, plan.output, lambda facts: _sidecar(plan, facts, layers, seconds))
    if plan.options.timing_cache is not None and compiled.timing_cache is not None:
        write_timing_cache(compiled.timing_cache, plan.options.timing_cache)
    return plan.output, sidecar


def _targets(library: Library, asked: str | None) -> tuple[str, ...]:
    """Compute capabilities to compile for, ascending; none where the library compiles for the GPU at hand.

    Turing (7.5) only when asked for: NVIDIA advises against it in one engine with later ones, which it slows down.
    https://docs.nvidia.com/deeplearning/tensorrt-rtx/latest/getting-started/support-matrix.html
    """
    known = library.compute_capabilities
    if asked is None:
        return tuple(capability for capability in known if float(capability) >= _OLDEST_TOGETHER)
    if not known:
        raise UserError(f"{library.title} compiles for the GPU that it runs on; leave out --sm.")
    words = [word.strip() for word in asked.split(",")]
    for word in words:
        if word not in known:
            raise UserError(f"--sm has {word!a}; {library.title} compiles for {', '.join(known)}.")
    return tuple(sorted(set(words), key=float))


def _at_hand(library: Library, gpu: Gpu | None) -> str:
    if gpu is None:
        raise UserError(
            f"{library.title} compiles for the GPU that it runs on, and the driver shows none; run this on the device "
            "itself, or choose --target tensorrt_rtx."
        )
    return gpu.compute_capability


def _bundled_cache(bundle: Bundle) -> Path:
    if _CALIBRATION_CACHE not in bundle.manifest.files:
        raise UserError(
            f"{bundle.path} holds no {_CALIBRATION_CACHE}, which INT8 on the DLA needs; write one with "
            "fcn-calibrate ranges and pass it as --calibration-cache."
        )
    return bundle.path / _CALIBRATION_CACHE


def _sidecar(plan: EnginePlan, facts: EngineFileFacts, layers: LayerTypes | None, seconds: float) -> EngineSidecar:
    options = plan.options
    return EngineSidecar(
        engine=plan.output.name,
        sha256=facts.sha256,
        bytes=facts.bytes,
        library=plan.library.name,
        version=plan.library.version,
        gpu=None if plan.configuration.settings.compute_capabilities or plan.gpu is None else plan.gpu.name,
        compute_capabilities=plan.compute_capabilities,
        precision=options.precision,
        route=plan.configuration.settings.recipe.route,
        layers=layers.counts if layers else None,
        inspected_by=layers.inspected_by if layers else None,
        inputs=plan.parsed.inputs,
        outputs=plan.parsed.outputs,
        graph={name: spec.sha256 for name, spec in plan.bundle.graph_files(plan.graph).items()},
        workspace_mb=options.workspace,
        dla=options.dla,
        fcnedge=importlib.metadata.version("fcnedge"),
        seconds=round(seconds, 3),
    )
