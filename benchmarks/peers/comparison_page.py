"""A comparison as one HTML page with a picture of its ratios, and as Markdown for an issue."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from html import escape

from fcnedge.runtime.command import jsonable

from ..report.page import figure, html_table, markdown_table, page, paragraph, section
from .comparison import Bar, CompareReport
from .ratio_picture import RatioBar, ratio_bars


def comparison_title(report: CompareReport) -> str:
    """One line that says what this is."""
    return f"{report.model.name}: compared with other ways to the same mask"


def comparison_html(report: CompareReport) -> str:
    """The report as a document."""
    title = comparison_title(report)
    return page(title, (f"<h1>{escape(title)}</h1>", *comparison_sections(report)))


def comparison_sections(report: CompareReport) -> Iterator[str]:
    """The report as parts of a document."""
    return (part for part in _parts(report) if part)


def comparison_markdown(report: CompareReport) -> str:
    """The tables and how they were measured, as GitHub renders them."""
    parts = [f"### {comparison_title(report)}"]
    if report.partial is not None:
        parts.append(f"**Partial: {report.partial}.**")
    parts.append(markdown_table(report.cells(), report.header))
    bars = [_bar_words(bar) for bar in report.bars]
    parts += ["\n".join(f"- {text}" for text in texts) for texts in (list(report.missing()), bars) if texts]
    parts.append("\n".join(f"- {text}" for text in (*report.lines(), *report.notes)))
    return "\n\n".join(parts) + "\n"


def _parts(report: CompareReport) -> Iterator[str]:
    for line in report.lines():
        yield paragraph(f"{line}.", "soft")
    if report.partial is not None:
        yield paragraph(f"Partial: {report.partial}.", "warn")
    for note in report.notes:
        yield paragraph(f"{note[0].upper()}{note[1:]}.", "warn")
    bars = [
        RatioBar(row.name, row.ratio, row.ratio_low, row.ratio_high, ours=row.precision is not None)
        for row in report.rows
        if row.ratio is not None and row.ratio_low is not None and row.ratio_high is not None
    ]
    if bars:
        caption = f"Time over that of {report.reference}, with intervals of 95%; a row that leaves the picture is cut."
        yield section("Ratios", figure(ratio_bars(bars), caption))
    yield section("Rows", html_table(report.cells(), report.header))
    yield section("Bars", *(paragraph(f"{_bar_words(bar)}.") for bar in report.bars))
    yield section("Not measured", *(paragraph(text) for text in report.missing()))
    setups = [(row.name, row.detail, _pairs(row.versions)) for row in report.rows if row.detail]
    yield section("How each row was set up", html_table(setups, ("row", "settings", "versions"), wrap=True))
    facts = [*_facts(report.machine), *_facts(report.model)]
    yield section("Machine and model", html_table(facts, ("", ""), wrap=True))


def _bar_words(bar: Bar) -> str:
    word = {True: "Met", False: "Not met", None: "Not known"}[bar.met]
    return f"{word}: {bar.bar}: {bar.found}"


def _facts(facts: object) -> Iterator[tuple[str, str]]:
    data = jsonable(facts)
    for field in dataclasses.fields(facts):  # type: ignore[arg-type]
        value = data[field.name]
        if isinstance(value, dict):
            value = _pairs(value)
        elif isinstance(value, list):
            value = ", ".join(map(str, value))
        yield field.name.replace("_", " "), "–" if value in (None, "") else str(value)


def _pairs(values: dict[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())
