"""The HTML report: whole, self-contained, safe to open whatever a model is called; and its charts."""

from __future__ import annotations

import dataclasses
import math
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fcnedge.benchmarks.latency import LatencyOptions, measure_latency
from fcnedge.benchmarks.report.latency_html import latency_html, latency_markdown
from fcnedge.benchmarks.report.latency_report import LatencyReport
from fcnedge.benchmarks.report.page import write_page
from fcnedge.benchmarks.report.svg import Bar, bars, histogram, ticks, timeline
from fcnedge.runtime.errors import UserError

VOID = {"meta", "br", "hr", "img", "link"}
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def report(colour_bundle, voc_folder) -> LatencyReport:
    source = str(voc_folder / "JPEGImages")
    return measure_latency(LatencyOptions(str(colour_bundle), "onnxruntime", source=source, threads=1, frames=60))


class Outline(HTMLParser):
    """Raises when tags do not nest; keeps what the page refers to, and its text."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.references: list[str | None] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.references += [value for name, value in attrs if name in ("src", "href", "xlink:href", "srcset", "data")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def test_page_is_whole_and_needs_nothing_from_elsewhere(report):
    text = latency_html(report)
    page = Outline(text)
    assert page.references == []
    assert not {"script", "img", "link", "iframe", "object"} & set(page.tags)
    assert set(re.findall(r"https?://[^\"'\s<]+", text)) == {"http://www.w3.org/2000/svg"}
    assert "@import" not in text
    assert "url(" not in text
    assert page.tags.count("svg") == 4  # waterfall, histogram, timeline, layers
    assert all(word in text for word in ("prefers-color-scheme: dark", "@media print"))


def test_page_tells_every_stage_and_layer(report):
    words = " ".join(Outline(latency_html(report)).words)
    for name, times in report.stages.items():
        assert (name in words) == (times is not None)
    assert all(layer.name in words for layer in report.layers)
    assert all(digest in words for digest in report.model.sha256.values())


def test_names_cannot_break_out_of_the_page(report):
    name = '<script>alert("x")</script>&'
    layer = dataclasses.replace(report.layers[0], name=name, type=name)
    evil = dataclasses.replace(
        report,
        model=dataclasses.replace(report.model, name=name, path=name),
        source=dataclasses.replace(report.source, uri=name),
        machine=dataclasses.replace(report.machine, cpu=name),
        layers=(layer,),
        notes=(name,),
        partial=name,
    )
    page = Outline(latency_html(evil))
    assert "script" not in page.tags
    assert name in " ".join(page.words)


def test_report_of_a_single_frame_can_be_drawn(report):
    single = {name: values and values[:1] for name, values in report.samples.stages_ms.items()}
    samples = dataclasses.replace(report.samples, seconds=(0.1,), stages_ms=single, warm_up_ms=())
    Outline(latency_html(dataclasses.replace(report, samples=samples, layers=(), saturated=None, drift=None)))


def test_file_is_written_into_a_new_folder(report, tmp_path):
    write_page(latency_html(report), tmp_path / "new" / "r.html")
    assert (tmp_path / "new" / "r.html").read_text(encoding="utf-8") == latency_html(report)


def test_place_that_cannot_be_written_is_one_sentence(report, tmp_path):
    (tmp_path / "file").write_text("", encoding="ascii")
    with pytest.raises(UserError, match=r"cannot be written \(.*\); choose another place for the report\.$"):
        write_page(latency_html(report), tmp_path / "file" / "r.html")


# Charts


def rectangles(chart: str, kind: str) -> list[list[float]]:
    """x, y, width and height of each rectangle of that class."""
    found = ElementTree.fromstring(chart).iter(f"{SVG}rect")
    sides = ("x", "y", "width", "height")
    return [[float(rect.get(side, "nan")) for side in sides] for rect in found if rect.get("class") == kind]


@given(st.floats(-1e3, 1e3), st.floats(1e-3, 1e6))
def test_ticks_are_round_and_inside(low, span):
    high = low + span
    if not high > low:
        return
    marks = ticks(low, high)
    steps = np.diff(marks)
    assert 2 <= len(marks) <= 13
    assert low - 1e-6 * span <= marks[0]
    assert marks[-1] <= high + 1e-6 * span
    step = float(np.median(steps))
    mantissa = step / 10 ** math.floor(math.log10(step) + 1e-9)
    assert min(abs(mantissa - round_) for round_ in (1, 2, 5, 10)) < 1e-3


def test_histogram_counts_every_value_once():
    values = np.random.default_rng(1).gamma(9, 2, 500)
    chart = histogram(values.tolist(), [("p50", float(np.median(values)))], "ms")
    titles = [title.text or "" for title in ElementTree.fromstring(chart).iter(f"{SVG}title")]
    assert sum(int(title.rsplit(" ", 1)[1]) for title in titles) == 500


def test_outlier_does_not_squeeze_the_rest_of_the_histogram():
    values = [*np.random.default_rng(2).normal(20, 1, 500).tolist(), 5000.0]
    assert len(rectangles(histogram(values, [], "ms"), "bar")) > 10
    assert "1 slower, up to 5000.0 ms" in histogram(values, [], "ms")


def test_waterfall_bars_begin_where_the_one_before_ended():
    first, second = rectangles(bars([Bar("a", 3, "3"), Bar("b", 1, "1", start=3)], "ms"), "bar")
    assert second[0] == pytest.approx(first[0] + first[2], abs=0.11)
    assert first[2] == pytest.approx(3 * second[2], abs=0.31)


def test_timeline_has_a_dot_for_each_frame_and_shades_the_warm_up():
    chart = timeline([1.0, 1.1, 1.2], [20, 21, 22], [90, 40], [("median", 1.0, 1.2, 21.0)], "ms")
    kinds = [circle.get("class") for circle in ElementTree.fromstring(chart).iter(f"{SVG}circle")]
    assert (kinds.count("dot"), kinds.count("dot out")) == (3, 2)
    assert len(rectangles(chart, "shade")) == 1


@pytest.mark.parametrize("values", [[5.0], [5.0] * 30, [0.0, 0.0], [1e-6, 1e6]])
def test_charts_of_odd_values_hold_numbers_only(values):
    seconds = [float(index) for index in range(len(values))]
    for chart in (histogram(values, [], "ms"), timeline(seconds, values, [], [], "ms"), bars([], "ms")):
        ElementTree.fromstring(chart)
        assert "nan" not in chart
        assert "inf" not in chart.replace("info", "")


def test_long_names_are_cut_and_kept_in_the_title():
    name = "a_layer_with_a_name_that_no_chart_has_room_for_" * 3
    chart = bars([Bar(name, 1, "1.0")], "ms")
    texts = [text.text or "" for text in ElementTree.fromstring(chart).iter(f"{SVG}text")]
    assert any(text.endswith("…") for text in texts)
    assert name in chart


def test_markdown_has_a_line_per_stage_that_was_measured(report):
    lines = latency_markdown(report).splitlines()
    stages = [line.split(" | ")[0].removeprefix("| ") for line in lines if line.startswith("| ")][2:]
    assert stages == [name for name, times in report.stages.items() if times is not None]
    assert f"- {report.model.name} {report.model.input}" in "\n".join(lines)
