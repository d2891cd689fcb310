"""The accuracy report as HTML, as Markdown, and its Pareto picture: mIoU against milliseconds."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from .accuracy_report import AccuracyReport
from .page import alone, figure, html_table, markdown_table, page, paragraph, section
from .svg import Point, scatter

_TITLE = "Accuracy and speed"


def accuracy_html(report: AccuracyReport) -> str:
    """The report as a document."""
    return page(_TITLE, (f"<h1>{escape(_TITLE)}</h1>", *accuracy_sections(report)))


def accuracy_sections(report: AccuracyReport) -> Iterator[str]:
    """The report as sections of a larger page."""
    header, rows = report.summary()
    yield section(
        "mIoU against time",
        paragraph(f"{report.machine.title}; {report.conditions}.", "soft"),
        figure(pareto(report), "Up and left is better. The line: the best mIoU that a time per frame buys."),
        html_table(rows, header),
        paragraph(f"{report.legend[0].upper()}{report.legend[1:]}.", "soft"),
    )
    header, rows = report.classes()
    yield section("IoU per class", html_table(rows, header))


def pareto(report: AccuracyReport) -> str:
    """mIoU of the subset, in percent, against the median milliseconds of a frame, as SVG for a page."""
    points = [
        Point(report.label(row), row.p50_ms, 100 * row.miou_subset, best)
        for row, best in zip(report.rows, report.frontier(), strict=True)
    ]
    return scatter(points, "ms per frame, p50", f"{report.mean} %", y_span=2.0)


def pareto_file(report: AccuracyReport) -> str:
    """The picture as an SVG file of its own."""
    return alone(pareto(report))


def accuracy_markdown(report: AccuracyReport) -> str:
    """The tables and what they are of, for an issue or a README."""
    tables = (markdown_table(rows, header) for header, rows in (report.summary(), report.classes()))
    return "\n\n".join((f"**{_TITLE}**: {report.conditions}; {report.machine.title}.", *tables, f"{report.legend}.\n"))
