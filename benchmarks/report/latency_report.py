"""What `fcn-bench latency` measured: one object, whose fields are the keys of its JSON; docs/latency.md lists them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fcnedge.runtime.command import table

from ..layers.layer_time import LayerProfile, LayerTime
from ..machine import MachineFacts
from ..sensors.conditions import Clock, Conditions
from ..sensors.memory import Memory
from ..sensors.power import Power
from ..timing.saturated_mode import Saturated
from ..timing.statistics import Drift, Outliers, Times
from ..timing.warm_up import WarmUp
from .baseline import Comparison

TOOL, FORMAT = "fcn-bench latency", 1
_SHOWN_LAYERS = 8
_FEWEST_FOR_P99 = 100
_SLOWER_PROFILE = 1.3


@dataclass(frozen=True)
class ModelFacts:
    """What ran. sha256: of each file of the graph in that precision. threads: of one inference, None for one per core.

    input: `384x384 stretch`. path: as it was found.
    """

    name: str
    arch: str
    path: str
    input: str
    classes: int
    head: str
    backend: str
    precision: str
    threads: int | None
    opencv_threads: int
    sha256: dict[str, str]
    graph_bytes: int


@dataclass(frozen=True)
class SourceFacts:
    """Where frames came from. frame_sizes: WIDTHxHEIGHT of each, as measured; passes: how often it was begun."""

    uri: str
    frame_sizes: tuple[str, ...]
    live: bool
    passes: int


@dataclass(frozen=True)
class Samples:
    """Every `every`-th frame after warm-up, for charts and later comparisons. seconds: when each was done.

    warm_up_ms: frame_to_mask of the frames that were left out.
    """

    every: int
    seconds: tuple[float, ...]
    stages_ms: dict[str, tuple[float, ...] | None]
    warm_up_ms: tuple[float, ...]


@dataclass(frozen=True)
class LatencyReport:
    """Everything measured. A stage that this path does not have is None.

    partial: why the run ended before its time, None where it did not; interrupted: whether somebody ended it. frames,
    seconds: measured, warm-up left out; seconds are those of the frames, without what lay between them.
    throughput_fps: 1000 over the mean of end_to_end, one frame after another. drift, outliers: of frame_to_mask.
    notes: what a reader should know before he believes a number.
    """

    tool: str
    format: int
    partial: str | None
    interrupted: bool
    machine: MachineFacts
    model: ModelFacts
    source: SourceFacts
    frames: int
    seconds: float
    throughput_fps: float
    stages: dict[str, Times | None]
    warm_up: WarmUp
    drift: Drift | None
    outliers: Outliers
    conditions: Conditions
    saturated: Saturated | None
    memory: Memory
    power: Power
    layers: tuple[LayerTime, ...]
    layer_profile: LayerProfile
    samples: Samples
    notes: tuple[str, ...] = ()
    baseline: Comparison | None = None

    def text(self) -> str:
        """The report as text tables."""
        header, stages = self.stage_table()
        parts = [table(stages, header), "\n".join(self.lines())]
        if self.saturated is not None and self.saturated.rows:
            rows = [
                (row.workers, row.threads_each or "-", row.fps, row.p50_ms, row.frames) for row in self.saturated.rows
            ]
            parts.insert(1, table(rows, ("at once", "threads each", "masks/s", "p50 ms", "frames")))
        if self.layers:
            parts.insert(-1, self._layers())
        if self.baseline is not None:
            parts.append(self.baseline.text())
        return "\n\n".join(parts)

    def _layers(self) -> str:
        slowest = sorted(self.layers, key=lambda layer: -layer.ms)
        rows = [
            (layer.name[:40], layer.type, layer.implementation, layer.ms, round(100 * layer.share, 1))
            for layer in slowest[:_SHOWN_LAYERS]
        ]
        rest = len(slowest) - len(rows)
        more = f"\nand {rest} more; all {len(slowest)} take {self.layer_profile.sum_ms:.2f} ms" if rest > 0 else ""
        return table(rows, ("slowest layers", "type", "run by", "ms", "%")) + more

    def stage_table(self) -> tuple[tuple[str, ...], list[tuple]]:
        """(header, rows): the times of each stage that this path has, in milliseconds."""
        return ("stage", "min ms", "p50 ms", "p90 ms", "p99 ms", "max ms", "jitter ms"), [
            (name, times.min_ms, times.p50_ms, times.p90_ms, times.p99_ms, times.max_ms, times.jitter_ms)
            for name, times in self.stages.items()
            if times is not None
        ]

    def lines(self) -> Iterator[str]:
        """What ran where, and what `describe_run` says of it."""
        model, source = self.model, self.source
        yield (
            f"{model.name} {model.input}, {model.backend} {model.precision}, "
            f"{f'{model.threads} threads' if model.threads else 'one thread per core'}; {source.uri} at "
            f"{', '.join(source.frame_sizes[:3])}{' …' if len(source.frame_sizes) > 3 else ''}"
        )
        yield f"{self.machine.title}; {self.machine.kernel}"
        yield f"{self.frames:,} frames in {self.seconds:.1f} s, {self.throughput_fps:.1f} per second one after another"
        yield from describe_run(self)


def describe_run(report: LatencyReport) -> Iterator[str]:
    """One sentence or phrase each on warm-up, drift, outliers, conditions, memory and power, then the notes."""
    if report.partial is not None:
        yield f"partial: {report.partial}"
    yield _warm_up(report.warm_up)
    if report.drift is not None:
        yield _drift(report.drift)
    yield (
        f"outliers: {report.outliers.frames} frames ({report.outliers.share:.1%}) over {report.outliers.limit_ms:.1f} "
        f"ms, the slowest {report.outliers.worst_ms:.1f} ms"
    )
    yield f"conditions: {'; '.join(_conditions(report.conditions))}"
    yield f"memory: {_memory(report.memory)}"
    yield f"power: {_power(report.power)}"
    if report.saturated is not None and report.saturated.reason is not None:
        yield f"saturated: {report.saturated.reason}"
    if report.layer_profile.reason is not None:
        yield f"layers: {report.layer_profile.reason}"
    yield from (f"note: {note}" for note in report.notes)


def notes_on(
    stages: dict[str, Times | None],
    source: SourceFacts,
    conditions: Conditions,
    warm_up: WarmUp,
    profile: LayerProfile,
) -> tuple[str, ...]:
    """What a reader should know before he believes a number."""
    found = []
    whole, compute = stages["end_to_end"], stages["compute"]
    frames = whole.frames if whole is not None else 0
    if frames < _FEWEST_FOR_P99:
        found.append(f"p99 of {frames} frames says little more than their slowest; measure {_FEWEST_FOR_P99} or more")
    if source.uri.startswith("demo://"):
        found.append("frames of demo:// are drawn by the program: decode is the time of that, not of a decoder")
    if source.live:
        found.append("a camera is waited for, so decode has no time and end_to_end begins with the frame in hand")
    if (conditions.other_load or 0) > 0.1:
        found.append(f"other programs took {conditions.other_load:.0%} of all cores: do not publish these numbers")
    if (conditions.stolen or 0) > 0.02:
        found.append(f"the hypervisor gave {conditions.stolen:.0%} of this machine's time to others")
    if conditions.throttled:
        found.append("clocks were held down while it ran")
    if compute is not None and (profile.sum_ms or 0) > _SLOWER_PROFILE * compute.p50_ms:
        found.append("the layers were slower when profiled than when measured: trust their shares, not their times")
    if not warm_up.settled:
        found.append("the run did not settle: its times are no steady state's")
    return tuple(found)


def _warm_up(warm_up: WarmUp) -> str:
    if not warm_up.settled:
        return f"warm-up: not found, all frames count ({warm_up.reason})"
    were = "frame was" if warm_up.frames == 1 else "frames were"
    return f"warm-up: the first {warm_up.frames} {were} left out ({warm_up.rule})"


def _drift(drift: Drift) -> str:
    verdict = {True: "it drifted", False: "no drift", None: "too few frames to tell drift"}[drift.drifted]
    return (
        f"drift: {verdict}; second half over first half {drift.ratio:.3f}, 95% interval {drift.low:.3f} to "
        f"{drift.high:.3f}"
    )


def _conditions(found: Conditions) -> Iterator[str]:
    if found.cpu_clock is not None:
        yield f"CPU {_clock(found.cpu_clock)}"
    else:
        yield "CPU clock not told"
    if found.gpu_clock is not None:
        yield f"GPU {_clock(found.gpu_clock)}"
    if found.own_load is not None and found.other_load is not None and found.stolen is not None:
        yield f"of all cores' time {found.own_load:.0%} own, {found.other_load:.0%} others', {found.stolen:.0%} stolen"
    if found.hottest_c is not None:
        yield f"{found.hottest_c:.0f} °C at most"
    if found.throttled is None:
        yield "throttling not told"
    else:
        yield f"throttled by {', '.join(found.throttled)}" if found.throttled else "not throttled"


def _clock(clock: Clock) -> str:
    if clock.min_mhz == clock.max_mhz:
        return f"{clock.median_mhz:.0f} MHz"
    return f"{clock.median_mhz:.0f} MHz ({clock.min_mhz:.0f} to {clock.max_mhz:.0f})"


def _memory(memory: Memory) -> str:
    words = []
    if memory.host_peak_bytes is not None:
        words.append(f"{memory.host_peak_bytes / 1e6:.0f} MB at the peak of this process")
    if memory.host_before_bytes is not None:
        words.append(f"{memory.host_before_bytes / 1e6:.0f} MB before the model was opened")
    if memory.gpu_bytes is not None:
        words.append(f"{memory.gpu_bytes / 1e6:.0f} MB on the GPU")
    if memory.reason is not None:
        words.append(memory.reason)
    return ", ".join(words)


def _power(power: Power) -> str:
    if power.watts is None or power.joules_per_frame is None:
        return f"not known ({power.reason})"
    return f"{power.watts:.2f} W, {power.joules_per_frame:.3f} J per frame, {power.covers} ({power.reader})"
