"""How long a frame takes on this machine, stage by stage, and what a reader needs to know to believe it.

`python benchmarks/latency.py` is `fcn-bench latency`; without arguments it measures the shipped model. The keys of its
JSON are in docs/latency.md.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

if find_spec("fcnedge") is None:  # the script of a fresh clone
    sys.stderr.write("latency.py: fcnedge is not installed; run: pip install -e '.[build,cpu,headless,demo]'\n")
    sys.exit(2)

import numpy as np

from fcnedge.benchmarks.layers.layer_time import LayerProfile, LayerTime
from fcnedge.benchmarks.layers.profile import profile_layers
from fcnedge.benchmarks.machine import MachineFacts, machine_facts
from fcnedge.benchmarks.measured_bundle import measured_bundle
from fcnedge.benchmarks.report.baseline import FEWEST, compare_reports, read_baseline, refuse_other
from fcnedge.benchmarks.report.latency_html import latency_html, latency_markdown
from fcnedge.benchmarks.report.latency_report import (
    FORMAT,
    TOOL,
    LatencyReport,
    ModelFacts,
    Samples,
    SourceFacts,
    notes_on,
)
from fcnedge.benchmarks.report.page import write_page
from fcnedge.benchmarks.sensors.conditions import Sensors, conditions
from fcnedge.benchmarks.sensors.memory import Memory
from fcnedge.benchmarks.sensors.nvml import Nvml, open_nvml
from fcnedge.benchmarks.sensors.power import find_meters, power_of
from fcnedge.benchmarks.timing.saturated_mode import POOL_FRAMES, Saturated, plan_workers, run_saturated
from fcnedge.benchmarks.timing.stages import STAGES, scaled
from fcnedge.benchmarks.timing.statistics import Times, find_drift, find_outliers, summarize
from fcnedge.benchmarks.timing.stream_mode import INTERRUPTED, Budget, StreamRun, run_stream
from fcnedge.build_engine.engines.gpu import current_gpu
from fcnedge.runtime import Bundle, Segmenter, Source, open_source
from fcnedge.runtime.backends import BACKENDS, FrameBackend
from fcnedge.runtime.backends.opening import MAX_THREADS
from fcnedge.runtime.command import Progress, jsonable, write_json
from fcnedge.runtime.errors import UserError
from fcnedge.runtime.manifest import PRECISIONS
from fcnedge.runtime.opencv import load_cv2
from fcnedge.runtime.options import option
from fcnedge.runtime.process_memory import peak_bytes, resident_bytes

SATURATED_S = 3.0
"""Each number of workers runs so long, and no longer than the stream did."""
MAX_SAMPLES = 2000
_WATCHED = STAGES.index("frame_to_mask")
_WHOLE = STAGES.index("end_to_end")


@dataclass(frozen=True)
class LatencyOptions:
    """Command line of fcn-bench latency."""

    model: str | None = option(
        "bundle folder or shipped model; default: the shipped one, built into the cache if need be", None
    )
    backend: str = option("what runs the network", "auto", choices=("auto", "cpu", *BACKENDS))
    precision: str = option("which graph of the bundle runs", "auto", choices=("auto", *PRECISIONS))
    size: tuple[int, int] | None = option("WIDTHxHEIGHT of the network; a shipped model is built at it", None)
    source: str = option(
        "what fcn-run takes: file, folder, camera; files are read again from their start", "demo://clip"
    )
    frame_size: tuple[int, int] | None = option("WIDTHxHEIGHT to scale frames to, outside the clock", None)
    threads: int | None = option("CPU threads of one inference; default: one per core", None)
    frames: int | None = option("frames to measure once the run has settled", None)
    duration: float | None = option("seconds to measure likewise; default: 10, and 100 frames at least", None)
    json: Path | None = option("write the result as JSON", None, metavar="FILE")
    html: Path | None = option("write the report as one HTML file", None, metavar="FILE")
    markdown: Path | None = option("write the stages as Markdown", None, metavar="FILE")
    baseline: Path | None = option("compare with an earlier --json; exit 3 on a regression", None, metavar="FILE")
    force: bool = option("compare with a baseline of another machine, model or source", False)


def measure_latency(options: LatencyOptions) -> LatencyReport:
    """Measure what `options` say. Raises UserError in one sentence.

    An interrupt or a failure once frames were measured gives a partial report; before that it is raised.
    """
    _check(options)
    baseline = read_baseline(options.baseline) if options.baseline is not None else None
    # OpenCV and its FFmpeg read these when they load, as in fcn-run.
    os.environ.setdefault("OPENCV_LOG_LEVEL", "OFF")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    gpu, no_gpu = open_nvml()
    with (
        contextlib.closing(gpu) if gpu is not None else contextlib.nullcontext(),
        open_source(options.source) as source,  # before a bundle is built: it may be missing
    ):
        bundle = measured_bundle(options.model, options.size)
        measurement = _Measurement(options, source, bundle, gpu, no_gpu)
        if baseline is None or options.baseline is None:
            return measurement.report()
        path = options.baseline
        report = measurement.report(lambda known: refuse_other(baseline, known, path, force=options.force))
        data = jsonable(report)
        refuse_other(baseline, data, path, force=options.force)  # frame sizes are known only now
        return replace(report, baseline=compare_reports(baseline, data, path))


def write_report(report: LatencyReport, options: LatencyOptions) -> None:
    """Write the files that `options` name. Raises UserError when one cannot be written."""
    if options.json is not None:
        write_json(report, options.json)
    if options.html is not None:
        write_page(latency_html(report), options.html)
    if options.markdown is not None:
        write_page(latency_markdown(report), options.markdown)


class _Measurement:
    """One run: stream mode, then, unless it was interrupted, saturated mode and the layers."""

    def __init__(self, options: LatencyOptions, source: Source, bundle: Bundle, gpu: Nvml | None, no_gpu: str):
        self._options, self._source, self._bundle = options, source, bundle
        self._gpu, self._no_gpu = gpu, no_gpu
        self._partial: str | None = None
        self._interrupted = False

    def report(self, check: Callable[[dict[str, Any]], None] = lambda known: None) -> LatencyReport:
        """check: called before anything is timed, with the report's parts that are known by then, as JSON data."""
        options, source = self._options, self._source
        before = resident_bytes()
        with (
            contextlib.closing(Progress()) as progress,
            self._open(options.threads) as segmenter,
        ):
            on_gpu = isinstance(segmenter.backend, FrameBackend)
            model, machine = self._model(segmenter), self._machine(on_gpu=on_gpu)
            check(jsonable({"machine": machine, "model": model, "source": {"uri": source.uri}}))
            meters, no_power = find_meters(self._gpu if on_gpu else None)
            sensors = Sensors(meters, self._gpu if on_gpu else None)
            run = run_stream(
                source,
                segmenter,
                sensors,
                Budget(options.frames, options.duration),
                size=options.frame_size,
                progress=lambda frames, settled: progress(f"frame {frames}" if settled else f"warm-up, frame {frames}"),
            )
            memory = self._memory(before, on_gpu=on_gpu)
            if run.end is not None:
                self._partial = f"{run.end} after {len(run.measured_ms)} frames"
                self._interrupted = run.end == INTERRUPTED
            saturated, layers, profile = self._rest(run, source, model, progress, on_gpu=on_gpu)
            found = conditions(run.measured_readings, tells_throttling=sensors.tells_throttling)
        first, last = run.measured_readings[0], run.measured_readings[-1]
        measured = run.measured_ms
        watched = measured[:, _WATCHED]
        stages = {name: _stage(measured[:, place]) for place, name in enumerate(STAGES)}
        sizes = tuple(f"{width}x{height}" for height, width in run.sizes)
        facts = SourceFacts(source.uri, sizes, source.live, run.passes)
        return LatencyReport(
            tool=TOOL,
            format=FORMAT,
            partial=self._partial,
            interrupted=self._interrupted,
            machine=machine,
            model=model,
            source=facts,
            frames=len(measured),
            seconds=float(measured[:, _WHOLE].sum() / 1000),
            throughput_fps=float(1000 / measured[:, _WHOLE].mean()),
            stages=stages,
            warm_up=run.warm_up,
            drift=find_drift(watched) if len(watched) > 1 else None,
            outliers=find_outliers(watched),
            conditions=found,
            saturated=saturated,
            memory=memory,
            power=power_of(
                meters,
                no_power,
                (first.frames, first.seconds, first.joules),
                (last.frames, last.seconds, last.joules),
            ),
            layers=layers,
            layer_profile=profile,
            samples=_samples(run),
            notes=notes_on(stages, facts, found, run.warm_up, profile),
        )

    def _open(self, threads: int | None) -> Segmenter:
        return Segmenter(self._bundle, self._options.backend, self._options.precision, threads)

    def _machine(self, *, on_gpu: bool) -> MachineFacts:
        if self._gpu is not None:
            return machine_facts(gpus=(self._gpu.name,), gpu_driver=self._gpu.driver)
        gpu = current_gpu() if on_gpu else None
        return machine_facts(gpus=(gpu.name,) if gpu is not None else ())

    def _rest(
        self, run: StreamRun, source: Source, model: ModelFacts, progress: Progress, *, on_gpu: bool
    ) -> tuple[Saturated | None, tuple[LayerTime, ...], LayerProfile]:
        """Saturated mode and layers; what an interrupt leaves out is said."""
        nothing = LayerProfile(None, 0, None, "the run ended before")
        if run.end is not None:
            return None, (), nothing
        saturated = None
        try:
            progress("saturated mode")
            images = _pool(run, source, self._options.frame_size)
            cores = self._options.threads or _usable_cores()
            seconds = min(SATURATED_S, float(run.measured_ms[:, _WHOLE].sum() / 1000))
            saturated = run_saturated(images, self._open, plan_workers(cores, on_gpu=on_gpu), seconds)
            progress("layers")
            layers, profile = profile_layers(
                self._bundle, model.backend, model.precision, self._options.threads, images[0]
            )
        except KeyboardInterrupt:
            done = "stream" if saturated is None else "stream and saturated"
            self._partial, self._interrupted = f"interrupted after {done} mode", True
            return saturated, (), nothing
        return saturated, layers, profile

    def _memory(self, before: int | None, *, on_gpu: bool) -> Memory:
        used, reason = None, None
        if on_gpu:
            used = self._gpu.used_bytes() if self._gpu is not None else None
            reason = None if used is not None else f"GPU memory not known ({self._no_gpu or 'not told by process'})"
        peak = peak_bytes()
        return Memory(peak, before, used, reason if peak is not None else "no /proc/self/status on this system")

    def _model(self, segmenter: Segmenter) -> ModelFacts:
        manifest, backend = self._bundle.manifest, segmenter.backend
        files = {name: spec for name, spec in manifest.files.items() if spec.precision == backend.precision}
        return ModelFacts(
            name=manifest.name,
            arch=manifest.arch,
            path=str(self._bundle.path),
            input=f"{manifest.input.width}x{manifest.input.height} {manifest.input.fit}",
            classes=len(manifest.classes),
            head=manifest.head.kind,
            backend=backend.name,
            precision=backend.precision,
            threads=self._options.threads,
            opencv_threads=int(load_cv2().getNumThreads()),
            sha256={name: spec.sha256 for name, spec in files.items()},
            graph_bytes=sum(spec.bytes for spec in files.values()),
        )


def _pool(run: StreamRun, source: Source, size: tuple[int, int] | None) -> list[np.ndarray]:
    """Some frames for saturated mode, decoded beforehand; of a camera the last one, for it gives no others so fast."""
    if source.live and run.image is not None:
        return [run.image]
    return [scaled(frame.image, size) for frame in itertools.islice(source, POOL_FRAMES)]


def _usable_cores() -> int:
    facts = machine_facts()
    limit = facts.container_cores
    return facts.usable_cores if limit is None else max(1, min(facts.usable_cores, round(limit)))


def _stage(times_ms: np.ndarray) -> Times | None:
    known = times_ms[~np.isnan(times_ms)]
    return summarize(known) if len(known) else None


def _samples(run: StreamRun) -> Samples:
    measured, first = run.measured_ms, run.warm_up.frames
    every = -(-len(measured) // MAX_SAMPLES)
    return Samples(
        every=every,
        seconds=_rounded(run.moments_s[first : first + len(measured) : every]),
        stages_ms={
            name: None if np.isnan(measured[:, place]).all() else _rounded(measured[::every, place])
            for place, name in enumerate(STAGES)
        },
        warm_up_ms=_rounded(run.times_ms[:first, _WATCHED]),
    )


def _rounded(values: np.ndarray) -> tuple[float, ...]:
    """To a tenth of a microsecond: finer is noise, and takes room."""
    return tuple(round(float(value), 4) for value in values)


def _check(options: LatencyOptions) -> None:
    if options.threads is not None and not 1 <= options.threads <= MAX_THREADS:
        raise UserError(f"--threads is {options.threads}; it must be from 1 to {MAX_THREADS}.")
    if options.frames is not None and options.frames < 1:
        raise UserError(f"--frames is {options.frames}; it must be 1 or more.")
    if options.duration is not None and not 0 < options.duration < float("inf"):
        raise UserError(f"--duration is {options.duration}; it must be seconds above 0.")
    if options.baseline is not None and options.frames is not None and options.frames < FEWEST:
        raise UserError(f"--frames is {options.frames}; a comparison with --baseline needs {FEWEST} or more.")
    if options.force and options.baseline is None:
        raise UserError("--force is for a comparison; name a report with --baseline.")
    files = (("--json", options.json), ("--html", options.html), ("--markdown", options.markdown))
    for flag, path in files:
        if path is not None and path.is_dir():
            raise UserError(f"{path} is a folder; choose the name of a file for {flag}.")


if __name__ == "__main__":
    from fcnedge.benchmarks.cli import main

    sys.exit(main(["latency", *sys.argv[1:]]))
