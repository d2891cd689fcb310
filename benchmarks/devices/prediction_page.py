"""A prediction as one HTML page: the times, the roofline, every kernel."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from ..report.page import figure, figures, html_table, markdown_table, page, paragraph, section
from ..report.svg import Bar, bars
from .prediction import LAYER_HEADER, SHOWN_LAYERS, STAGE_HEADER, PredictReport, size_words
from .roofline_picture import roofline_picture

_BARS = 25


def prediction_html(report: PredictReport) -> str:
    """The report as a document."""
    return page(report.title, (f"<h1>{escape(report.title)}</h1>", *prediction_sections(report)))


def prediction_sections(report: PredictReport) -> Iterator[str]:
    """The report as parts of a document."""
    found = report.forecast
    yield paragraph("Predicted from the graph and data sheets, not measured.", "warn")
    yield figures(
        (
            (f"{found.whole.expected:.1f} ms", f"frame to mask, {found.whole.low:.1f} to {found.whole.high:.1f}"),
            (f"{found.fps.expected:.0f}", f"frames/s, {found.fps.low:.0f} to {found.fps.high:.0f}"),
            (size_words(report.reaches) if report.reaches else "none", f"largest size for {report.fps:g} frames/s"),
        )
    )
    yield "\n".join(paragraph(f"{line}.") for line in report.lines())
    yield "\n".join(paragraph(f"{line}.", "soft") for line in report.remarks())
    caption = "Each dot is a kernel: the higher, the faster; no kernel can lie above the line of the unit it runs on."
    yield section("Roofline", figure(roofline_picture(found), caption))
    slowest = sorted(found.layers, key=lambda each: -each.ms)[:_BARS]
    rows = [
        Bar(each.layer.name, each.ms, f"{each.ms:.3f} {each.bound}", kind="bar" if each.unit else "whole")
        for each in slowest
    ]
    yield section(f"The slowest {len(rows)} of {len(found.layers)} kernels", figure(bars(rows, "ms"), "Expected time."))
    yield section("Stages", html_table(report.stage_cells(), STAGE_HEADER))
    yield section("All kernels", html_table(report.layer_cells(), LAYER_HEADER, wrap=True))
    sources = [(name, address) for name, address in found.device.sources.items()]
    sources += [("rates per clock", address) for address in found.device.rates.sources]
    yield section("Where the device's figures are from", html_table(sources, ("figure", "source"), wrap=True))


def prediction_markdown(report: PredictReport) -> str:
    """The tables and what they mean, for pasting into an issue."""
    lines = [f"- {line}" for line in (*report.lines(), *report.remarks())]
    stages = markdown_table(report.stage_cells(), STAGE_HEADER)
    slowest = markdown_table(report.layer_cells()[:SHOWN_LAYERS], LAYER_HEADER)
    return "\n\n".join((f"**{report.title}**", "\n".join(lines), stages, slowest)) + "\n"
