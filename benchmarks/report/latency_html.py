"""The latency report as HTML (figures, stages, histogram, timeline, layers, the machine) and as Markdown."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from html import escape

import numpy as np

from fcnedge.runtime.command import jsonable

from ..timing.stages import PARTS
from .latency_report import LatencyReport, describe_run
from .page import figure, figures, html_table, markdown_table, page, paragraph, section
from .svg import Bar, bars, histogram, timeline

MAX_LAYERS = 25


def latency_html(report: LatencyReport) -> str:
    """The report as a document."""
    title = latency_title(report)
    return page(title, (f"<h1>{escape(title)}</h1>", *latency_sections(report)))


def latency_title(report: LatencyReport) -> str:
    """`fcn8s-lite0-voc: latency, openvino int8`."""
    return f"{report.model.name}: latency, {report.model.backend} {report.model.precision}"


def latency_sections(report: LatencyReport) -> Iterator[str]:
    """The report as parts of a larger page."""
    return (part for part in _parts(report) if part)


def latency_markdown(report: LatencyReport) -> str:
    """The stages and what they are of, for pasting into an issue."""
    header, rows = report.stage_table()
    lines = [f"**{latency_title(report)}**", "", markdown_table(rows, header), ""]
    lines += [f"- {line}" for line in report.lines()]
    return "\n".join(lines) + "\n"


def _parts(report: LatencyReport) -> Iterator[str]:
    model, source = report.model, report.source
    yield paragraph(f"{report.machine.title}; {report.machine.kernel}; {report.machine.python}", "soft")
    threads = f"{model.threads} threads" if model.threads else "one thread per core"
    yield paragraph(f"{model.input}, {threads}; {source.uri} at {', '.join(source.frame_sizes[:3])}", "soft")
    if report.partial is not None:
        yield paragraph(f"Partial: {report.partial}.", "warn")
    for note in report.notes:
        yield paragraph(_sentence(note), "warn")
    yield figures(_figures(report))
    if report.baseline is not None:
        yield _baseline(report)
    yield _stages(report)
    yield _distribution(report)
    yield _saturated(report)
    yield _layers(report)
    yield section("The run", *(paragraph(_sentence(line)) for line in describe_run(report) if not _is_note(line)))
    yield section("Machine and model", _facts(report))


def _figures(report: LatencyReport) -> Iterator[tuple[str, str]]:
    mask, whole = report.stages["frame_to_mask"], report.stages["end_to_end"]
    if mask is not None:
        yield f"{mask.p50_ms:.1f} ms", "frame to mask, p50"
        yield f"{mask.p99_ms:.1f} ms", "frame to mask, p99"
    if whole is not None:
        yield f"{whole.p50_ms:.1f} ms", "end to end, p50"
    yield f"{report.throughput_fps:.1f} /s", "frames, one after another"
    if report.saturated is not None and report.saturated.best_fps is not None:
        yield f"{report.saturated.best_fps:.1f} /s", f"masks, {report.saturated.best_workers} at once"
    if report.power.joules_per_frame is not None:
        yield f"{report.power.joules_per_frame:.2f} J", "per frame"
    if report.memory.host_peak_bytes is not None:
        yield f"{report.memory.host_peak_bytes / 1e6:.0f} MB", "memory of the process, peak"


def _stages(report: LatencyReport) -> str:
    header, rows = report.stage_table()
    return section(
        "Stages",
        figure(bars(list(_waterfall(report)), "ms"), "Medians, each stage from where the one before it ended."),
        html_table(rows, header),
    )


def _waterfall(report: LatencyReport) -> Iterator[Bar]:
    start = 0.0
    for name in PARTS:
        times = report.stages[name]
        if times is not None:
            yield Bar(name, times.p50_ms, f"{times.p50_ms:.2f}", f"{name}: p50 {times.p50_ms:.3f} ms", start)
            start += times.p50_ms
    whole = report.stages["end_to_end"]
    if whole is not None:
        yield Bar(
            "end_to_end", whole.p50_ms, f"{whole.p50_ms:.2f}", f"end_to_end: p50 {whole.p50_ms:.3f} ms", 0, "whole"
        )


def _distribution(report: LatencyReport) -> str:
    times, samples = report.stages["frame_to_mask"], report.samples
    values = samples.stages_ms["frame_to_mask"]
    if times is None or not values:
        return ""
    marks = [(f"p50 {times.p50_ms:.1f}", times.p50_ms), (f"p90 {times.p90_ms:.1f}", times.p90_ms)]
    marks.append((f"p99 {times.p99_ms:.1f}", times.p99_ms))
    every = "" if samples.every == 1 else f" Every {samples.every}th frame is shown."
    charts = [figure(histogram(values, marks, "ms"), f"Frame to mask, {len(values)} frames.{every}")]
    middle = len(values) // 2
    if middle:
        levels = [
            (f"median {np.median(part):.2f}", samples.seconds[begin], samples.seconds[end], float(np.median(part)))
            for part, begin, end in ((values[:middle], 0, middle - 1), (values[middle:], middle, len(values) - 1))
        ]
        chart = timeline(samples.seconds, values, samples.warm_up_ms, levels, "ms")
        charts.append(figure(chart, "Frame to mask over the run, with the medians of both halves."))
    return section("Distribution and course", *charts)


def _saturated(report: LatencyReport) -> str:
    if report.saturated is None or not report.saturated.rows:
        return ""
    rows = [(row.workers, row.threads_each or "–", row.fps, row.p50_ms, row.frames) for row in report.saturated.rows]
    return section(
        "Saturated",
        html_table(rows, ("at once", "threads each", "masks/s", "p50 ms", "frames")),
        paragraph("Frame in memory to mask, several models at once; nothing is decoded or painted.", "soft"),
    )


def _layers(report: LatencyReport) -> str:
    if not report.layers:
        return ""
    slowest = sorted(report.layers, key=lambda layer: -layer.ms)
    rows = [
        Bar(
            layer.name,
            layer.ms,
            f"{layer.ms:.3f} ({layer.share:.1%})",
            f"{layer.name}: {layer.type} {layer.implementation}",
        )
        for layer in slowest[:MAX_LAYERS]
    ]
    profile, rest = report.layer_profile, slowest[MAX_LAYERS:]
    caption = f"{profile.tool}, medians of {profile.runs} inferences in a session of their own."
    if rest:
        ms, share = sum(layer.ms for layer in rest), sum(layer.share for layer in rest)
        caption += f" {len(rest)} more layers take {ms:.2f} ms ({share:.0%})."
    kinds: dict[str, list[float]] = {}
    for layer in report.layers:
        kinds.setdefault(f"{layer.type} {layer.implementation}".strip(), []).append(layer.ms)
    whole = sum(layer.ms for layer in report.layers) or 1.0
    table = [
        (kind, len(ms), sum(ms), 100 * sum(ms) / whole)
        for kind, ms in sorted(kinds.items(), key=lambda item: -sum(item[1]))
    ]
    return section(
        "Layers",
        figure(bars(rows, "ms"), caption),
        html_table(table, ("kind of layer", "layers", "ms", "%")),
    )


def _baseline(report: LatencyReport) -> str:
    found = report.baseline
    if found is None:
        return ""
    rows = [
        (
            *(row.stage, row.old_p50_ms, row.new_p50_ms, f"{row.ratio:.3f}"),
            *(f"{row.ratio_low:.3f} to {row.ratio_high:.3f}", row.verdict),
        )
        for row in found.rows
    ]
    verdict = f"{found.verdict[0].upper()}{found.verdict[1:]}."
    return section(
        "Against the baseline",
        paragraph(verdict, "warn" if found.regression else ""),
        html_table(rows, ("stage", "then ms", "now ms", "ratio", "95% interval", "verdict")),
        *(paragraph(f"Not the same: {text}.", "warn") for text in found.differences),
        *(paragraph(f"Changed since: {text}.", "soft") for text in found.versions),
    )


def _facts(report: LatencyReport) -> str:
    """Every field of machine and model, as the JSON has it; a dash where there is none."""
    rows = []
    for facts in (report.machine, report.model):
        for field in dataclasses.fields(facts):
            value = jsonable(getattr(facts, field.name))
            if isinstance(value, dict):
                value = ", ".join(f"{name} {inner}" for name, inner in value.items())
            elif isinstance(value, list):
                value = ", ".join(map(str, value))
            rows.append((field.name.replace("_", " "), "–" if value in (None, "") else str(value)))
    return html_table(rows, ("", ""), wrap=True)


def _is_note(line: str) -> bool:
    return line.startswith(("note: ", "partial: "))  # shown at the top


def _sentence(line: str) -> str:
    return f"{line[0].upper()}{line[1:]}."
