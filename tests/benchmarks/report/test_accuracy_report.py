"""The accuracy report's tables, its Markdown, its page and its picture."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from fcnedge.benchmarks.machine import machine_facts
from fcnedge.benchmarks.report.accuracy_html import accuracy_html, accuracy_markdown, pareto_file
from fcnedge.benchmarks.report.accuracy_report import FORMAT, TOOL, AccuracyReport, AccuracyRow

IOU = {"cat": 0.7, "dog": 0.5}
FIRST = AccuracyRow(
    *("pets", "96x96 letterbox", "fp32", "onnxruntime", 11_800_000),
    *(0.434, 0.719, 0.0, 1.0, 0.914, 24.04, IOU),
)
SECOND = AccuracyRow(
    *("pets", "96x96 letterbox", "int8", "openvino", 3_450_000),
    *(0.43, 0.7165, 0.25, 0.9921, 0.91, 12.3, IOU | {"cat": 0.69}),
)
SLOW = AccuracyRow(
    *("pets", "128x96 stretch", "int8", "onnxruntime", 3_450_000),
    *(0.42, 0.7, 0.0, 1.0, 0.9, 30.0, IOU),
)


def report(*rows: AccuracyRow) -> AccuracyReport:
    return AccuracyReport(TOOL, FORMAT, machine_facts(), "val, 3 pictures", 3, ("cat", "dog"), 2, rows)


def test_text_has_a_line_per_row_and_one_per_class():
    rows, classes, words = report(FIRST, SECOND).text().split("\n\n")
    lines = [" ".join(line.split()) for line in rows.splitlines()]
    assert lines[1] == "96x96 letterbox fp32 onnxruntime 11.80 43.40 71.90 0.00 100.00 91.40 24.04 *"
    assert lines[2] == "96x96 letterbox int8 openvino 3.45 43.00 71.65 0.25 99.21 91.00 12.30 *"
    assert "mIoU-2 %" in rows.splitlines()[0]
    table = [line.split() for line in classes.splitlines()]
    assert table[0] == ["IoU", "%", "fp32", "onnxruntime", "int8", "openvino"]
    assert table[1:] == [["cat", "70.00", "69.00"], ["dog", "50.00", "50.00"]]
    assert words.startswith("pets at 96x96 letterbox on val, 3 pictures, 2 classes occur, 2 threads; drop in points of")


def test_a_row_that_is_slower_and_worse_is_not_on_the_frontier():
    found = report(FIRST, SECOND, SLOW)
    assert found.frontier() == (True, True, False)
    header, rows = found.summary()
    assert [row[header.index("frontier")] for row in rows] == ["*", "*", ""]


def test_rows_are_named_by_what_tells_them_apart():
    assert report(FIRST, SECOND).label(FIRST) == "fp32 onnxruntime"
    assert report(FIRST, SLOW).label(SLOW) == "128x96 int8 onnxruntime"


def test_markdown_is_two_tables_with_a_line_per_row_and_class():
    lines = accuracy_markdown(report(FIRST, SECOND)).splitlines()
    tables = [line for line in lines if line.startswith("|")]
    assert len(tables) == (2 + 2) + (2 + 2)  # head and rule, then two rows; head and rule, then two classes
    assert tables[2] == (
        "| 96x96 letterbox | fp32 | onnxruntime | 11.80 | 43.40 | 71.90 | 0.00 | 100.00 | 91.40 | 24.04 | * |"
    )
    assert len({line.count("|") for line in tables[:4]}) == 1


def test_page_holds_both_tables_and_the_picture():
    text = accuracy_html(report(FIRST, SECOND, SLOW))
    assert text.count("<table>") == 2
    assert 'aria-label="scatter"' in text
    assert "http" not in text.replace('xmlns="http://www.w3.org/2000/svg"', "")


def test_picture_marks_the_frontier_and_names_every_row():
    root = ElementTree.fromstring(pareto_file(report(FIRST, SECOND, SLOW)))
    dots = [each for each in root.iter() if each.tag.endswith("circle")]
    by_name = {dot[0].text: dot for dot in dots}
    assert {name: dot.get("class") for name, dot in by_name.items()} == {
        "96x96 letterbox fp32 onnxruntime": "dot best",
        "96x96 letterbox int8 openvino": "dot best",
        "128x96 int8 onnxruntime": "dot",
    }
    x = {name: float(dot.get("cx", "nan")) for name, dot in by_name.items()}
    y = {name: float(dot.get("cy", "nan")) for name, dot in by_name.items()}
    fast, exact, slow = "96x96 letterbox int8 openvino", "96x96 letterbox fp32 onnxruntime", "128x96 int8 onnxruntime"
    assert x[fast] < x[exact] < x[slow]
    assert y[exact] < y[fast] < y[slow]  # pixels count from the top


@pytest.mark.parametrize("count", [2, 12])
def test_names_in_the_picture_do_not_lie_on_each_other(count):
    rows = [
        AccuracyRow("pets", "96x96 stretch", "fp32", f"backend{index}", 1, 0.4, 0.7, 0, 1, 0.9, 20 + index / 10, IOU)
        for index in range(count)
    ]
    root = ElementTree.fromstring(pareto_file(report(*rows)))
    names = [each for each in root.iter() if each.tag.endswith("text") and (each.text or "").startswith("fp32")]
    assert len(names) == count
    places = [(float(each.get("x", "nan")), float(each.get("y", "nan"))) for each in names]
    for number, (x, y) in enumerate(places):
        for other_x, other_y in places[:number]:
            assert abs(y - other_y) >= 12 or abs(x - other_x) >= 80
