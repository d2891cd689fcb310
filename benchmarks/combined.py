"""Several measurements as one report: what `fcn-bench latency`, `accuracy` and the others wrote with --json."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from fcnedge.runtime.errors import UserError
from fcnedge.runtime.options import option

from .devices import prediction
from .devices.prediction import PredictReport
from .devices.prediction_page import prediction_markdown, prediction_sections
from .peers import comparison
from .peers.comparison import CompareReport
from .peers.comparison_page import comparison_markdown, comparison_sections, comparison_title
from .report import accuracy_report, latency_report
from .report.accuracy_html import accuracy_markdown, accuracy_sections
from .report.accuracy_report import AccuracyReport
from .report.latency_html import latency_markdown, latency_sections, latency_title
from .report.latency_report import LatencyReport
from .report.page import page, write_page
from .report.reading import NotThatError, read_json, restored


@dataclass(frozen=True)
class ReportOptions:
    """Command line of fcn-bench report."""

    files: tuple[Path, ...] = option("what fcn-bench wrote with --json, in the order of the report", positional=True)
    html: Path | None = option("write one HTML file with everything in it", None, metavar="FILE")
    markdown: Path | None = option("write the tables as Markdown", None, metavar="FILE")


@dataclass(frozen=True)
class Kind:
    """One kind of report file: its dataclass, and how an object of it is titled and shown."""

    format: int
    type: type
    title: Callable[[Any], str]
    sections: Callable[[Any], Iterator[str]]
    markdown: Callable[[Any], str]


KINDS = {
    latency_report.TOOL: Kind(latency_report.FORMAT, LatencyReport, latency_title, latency_sections, latency_markdown),
    accuracy_report.TOOL: Kind(
        accuracy_report.FORMAT, AccuracyReport, lambda _: "Accuracy and speed", accuracy_sections, accuracy_markdown
    ),
    prediction.TOOL: Kind(
        prediction.FORMAT, PredictReport, lambda report: report.title, prediction_sections, prediction_markdown
    ),
    comparison.TOOL: Kind(comparison.FORMAT, CompareReport, comparison_title, comparison_sections, comparison_markdown),
}
"""By the file's key `tool`."""


def combine(options: ReportOptions) -> None:
    """Write the report that `options` describe. Raises UserError."""
    if options.html is None and options.markdown is None:
        raise UserError("a report needs a place to go; name one with --html or --markdown.")
    reports = [_read(path) for path in options.files]
    if options.html is not None:
        write_page(combined_html(reports), options.html)
    if options.markdown is not None:
        write_page("\n".join(kind.markdown(report) for kind, report in reports), options.markdown)


def combined_html(reports: Sequence[tuple[Kind, Any]]) -> str:
    """One document with all reports, and links to each at the top where there are several."""
    titles = [kind.title(report) for kind, report in reports]
    if len(reports) == 1:
        return page(titles[0], (f"<h1>{escape(titles[0])}</h1>", *reports[0][0].sections(reports[0][1])))
    links = "".join(f'<li><a href="#part{number}">{escape(title)}</a></li>' for number, title in enumerate(titles, 1))
    parts = ["<h1>Measurements</h1>", f"<ul>{links}</ul>"]
    for number, ((kind, report), title) in enumerate(zip(reports, titles, strict=True), 1):
        parts += [f'<h1 id="part{number}">{escape(title)}</h1>', *kind.sections(report)]
    return page("Measurements", parts)


def _read(path: Path) -> tuple[Kind, Any]:
    data = read_json(path)
    kind = KINDS.get(str(data.get("tool")))
    if kind is None:
        raise UserError(f"{path} is no report of {', '.join(KINDS)}; name a file that one of them wrote with --json.")
    if data.get("format") != kind.format:
        raise UserError(
            f"{path} has format {data.get('format')}, this fcnedge reads format {kind.format} of {data['tool']}; "
            "measure again."
        )
    try:
        return kind, restored(kind.type, data)
    except NotThatError as error:
        raise UserError(f"{path} is damaged or was edited ({error}); measure again.") from error
