"""Network → serialised engine: workspace, targets, flags, timing cache, and one sentence when it fails."""

from __future__ import annotations

import threading
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fcnedge.runtime.command import Progress
from fcnedge.runtime.errors import UserError

from .build_progress import progress_monitor
from .cache_calibrator import cache_calibrator
from .library import Library, has_member
from .library_log import last_reason
from .network import ParsedNetwork
from .recipe import Recipe

_MIB = 1 << 20


@dataclass(frozen=True)
class Settings:
    """How to compile.

    workspace_mb: most scratch memory of one layer, in MiB; compute_capabilities: to compile for, none for the GPU at
    hand; calibration: the cache's bytes where the recipe wants them; timing_cache: file to read.
    """

    recipe: Recipe
    workspace_mb: int
    compute_capabilities: tuple[str, ...] = ()
    dla: bool = False
    calibration: bytes | None = None
    timing_cache: Path | None = None


@dataclass(frozen=True)
class Configuration:
    """The builder's configuration. keep: Python objects that only C++ holds on to, and that must outlive the build."""

    config: Any
    settings: Settings
    keep: tuple[Any, ...]


@dataclass(frozen=True)
class CompiledEngine:
    """plan: the engine's bytes, a buffer that the library owns; timing_cache: to be kept, None when not asked for."""

    plan: Any
    timing_cache: bytes | None


def configure(library: Library, parsed: ParsedNetwork, settings: Settings) -> Configuration:
    """Tell the builder what `settings` say. Raises UserError for what this library or machine has not."""
    module = library.module
    config = parsed.builder.create_builder_config()
    config.set_memory_pool_limit(module.MemoryPoolType.WORKSPACE, settings.workspace_mb * _MIB)
    config.profiling_verbosity = module.ProfilingVerbosity.DETAILED  # so that the engine can say what its layers are
    for flag in settings.recipe.flags:
        config.set_flag(getattr(module.BuilderFlag, flag))
    if settings.compute_capabilities:
        config.num_compute_capabilities = len(settings.compute_capabilities)
        for index, capability in enumerate(settings.compute_capabilities):
            member = getattr(module.ComputeCapability, f"SM{capability.replace('.', '')}")
            config.set_compute_capability(member, index)
    if settings.dla:
        _use_dla(library, parsed.builder, config)
    keep = []
    if settings.calibration is not None:
        keep.append(cache_calibrator(module, settings.calibration))
        config.int8_calibrator = keep[-1]
    if settings.timing_cache is not None:
        keep.append(_read_timing_cache(library, config, settings.timing_cache))
    return Configuration(config, settings, tuple(keep))


def compile_network(
    library: Library, log: Any, parsed: ParsedNetwork, configuration: Configuration, cancelled: threading.Event
) -> CompiledEngine:
    """Compile. log, cancelled: as given to `library_log`. Raises UserError with the library's own reason.

    Ctrl-C ends the build after the step in hand, and then raises KeyboardInterrupt.
    """
    config, settings, progress = configuration.config, configuration.settings, Progress()
    monitor = progress_monitor(library.module, progress, cancelled)
    if monitor is not None:
        config.progress_monitor = monitor
    progress("compile …")
    log.errors.clear()
    try:
        plan = parsed.builder.build_serialized_network(parsed.network, config)
    finally:
        progress.close()
    if cancelled.is_set():
        raise KeyboardInterrupt
    if plan is None:
        raise UserError(_failure(library, log, settings))
    wanted = settings.timing_cache is not None
    return CompiledEngine(plan, bytes(config.get_timing_cache().serialize()) if wanted else None)


def _use_dla(library: Library, builder: Any, config: Any) -> None:
    if builder.num_DLA_cores < 1:
        raise UserError(f"{library.title} finds no DLA on this machine; leave out --dla.")
    config.default_device_type = library.module.DeviceType.DLA
    config.DLA_core = 0
    if has_member(library.module, "BuilderFlag", "GPU_FALLBACK"):  # what the DLA cannot do runs on the GPU
        config.set_flag(library.module.BuilderFlag.GPU_FALLBACK)


def _read_timing_cache(library: Library, config: Any, path: Path) -> Any:
    """Let the builder start from the measurements in `path`, if there are any yet."""
    try:
        data = path.read_bytes() if path.exists() else b""
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); choose another --timing-cache.") from error
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", DeprecationWarning)
        cache = config.create_timing_cache(data)
        taken = cache is not None and config.set_timing_cache(cache, ignore_mismatch=False)
    if any(issubclass(warning.category, DeprecationWarning) for warning in said):
        # TensorRT-RTX 1.2 and later: the calls are still there and do nothing
        raise UserError(f"{library.title} measures no kernels and keeps no timing cache; leave out --timing-cache.")
    if not taken:
        raise UserError(
            f"{path} is not a timing cache of {library.title} for this GPU; delete it or choose another --timing-cache."
        )
    return cache


def _failure(library: Library, log: Any, settings: Settings) -> str:
    reason = last_reason(log)
    advice = "FCNEDGE_LOG=INFO shows more"
    if "workspace" in reason.lower() or "memory" in reason.lower():
        advice = f"allow it more than --workspace {settings.workspace_mb}, or free some memory"
    elif settings.calibration is not None:
        advice = "check that the calibration cache was written for this bundle; FCNEDGE_LOG=INFO shows more"
    return f"{library.title} could not compile the network{reason}; {advice}."
