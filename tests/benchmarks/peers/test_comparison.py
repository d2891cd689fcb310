"""Which row is the reference, which bars are met, and what readers are shown."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from fcnedge.benchmarks.machine import machine_facts
from fcnedge.benchmarks.peers.comparison import (
    FORMAT,
    RULE,
    RULE_WITHOUT_MIOU,
    TOOL,
    ComparedModel,
    ComparedRow,
    CompareReport,
    check_bars,
    choose_reference,
)
from fcnedge.benchmarks.peers.comparison_page import comparison_html, comparison_markdown
from fcnedge.benchmarks.peers.ratio_picture import RatioBar, ratio_bars


def row(name: str, p50: float | None, miou7: float | None, precision: str | None = None, **other) -> ComparedRow:
    ratio = None if p50 is None else p50 / 10
    given = {"ratio": ratio, "ratio_low": ratio and 0.9 * ratio, "ratio_high": ratio and 1.1 * ratio}
    given |= {"miou": miou7, "frames": 6, "cores": 1.9, "warm_up_frames": 3, "settled": True}
    given |= {"detail": "num_threads 2", "versions": {"runtime": "1.2"}, "reason": None}
    return ComparedRow(name=name, precision=precision, p50_ms=p50, miou7=miou7, **(given | other))


OURS = (
    row("ours a fp32", 30, 0.80, "fp32"),
    row("ours b fp32", 25, 0.801, "fp32"),
    row("ours a int8", 10, 0.795, "int8"),
    row("ours b int8", 8, 0.75, "int8"),
)


def report(rows: tuple[ComparedRow, ...]) -> CompareReport:
    reference, rule = choose_reference(rows)
    model = ComparedModel("fcn <small>", "fcn8s", "bundle", "384x384 stretch", {"model.fp32.onnx": "ab"})
    return CompareReport(
        *(TOOL, FORMAT, None, False, machine_facts(), model, 2, 3, "500x375", 2, "val", 302, ("cat", "dog")),
        *("100 pictures of train", reference, rule, 12.5, rows, check_bars(rows, reference), None, ("note|one",)),
    )


def test_reference_is_the_fastest_within_a_point_of_fp32():
    assert choose_reference(OURS) == ("ours a int8", RULE)


def test_without_any_miou_the_reference_is_the_fastest_fp32():
    rows = [row(each.name, each.p50_ms, None, each.precision) for each in OURS]
    assert choose_reference(rows) == ("ours b fp32", RULE_WITHOUT_MIOU)


def test_a_row_whose_miou_is_not_known_is_no_reference_beside_rows_that_are():
    assert choose_reference([*OURS, row("ours c int8", 1, None, "int8")]) == ("ours a int8", RULE)


def test_peers_are_never_the_reference():
    assert choose_reference([row("by hand", 1, 0.9)])[0] is None


def test_bars_are_met_or_not_by_the_ratios():
    rows = (*OURS, row("by hand", 31, 0.8), row("OpenVINO on the raw export", 19, 0.8))
    assert [(bar.met, bar.bar) for bar in check_bars(rows, "ours a int8")] == [
        (True, "at least 3x by hand"),
        (False, "at least 2x OpenVINO on the raw export"),
    ]


def test_bars_are_about_ours_so_a_peer_as_the_reference_has_none():
    assert check_bars((*OURS, row("by hand", 31, 0.8), row("DeepLab x", 70, 0.7)), "by hand") == ()


@pytest.mark.parametrize(
    ("p50", "miou7", "met"), [(70, 0.79, True), (70, 0.80, False), (9, 0.7, False), (70, None, None)]
)
def test_deeplab_must_be_slower_and_no_better(p50, miou7, met):
    (bar,) = check_bars((*OURS, row("DeepLab x", p50, miou7)), "ours a int8")
    assert bar.met is met


def test_a_bar_whose_row_is_missing_is_not_known():
    (bar,) = check_bars((*OURS, row("by hand", None, None, reason="not installed")), "ours a int8")
    assert (bar.met, bar.found) == (None, "not measured")


def test_text_and_markdown_name_every_row_and_every_reason():
    found = report((*OURS, row("by hand", 31, 0.8), row("LiteRT int8", None, None, reason="x is not installed")))
    for text in (found.text(), comparison_markdown(found)):
        assert all(each.name in text for each in found.rows)
        assert "LiteRT int8: x is not installed" in text
        assert "ours a int8 (reference)" in text
    line = next(line for line in comparison_markdown(found).splitlines() if line.startswith("| by hand"))
    assert [cell.strip() for cell in line.strip("|").split("|")] == [
        *("by hand", "31.0", "3.10", "2.79 to 3.41", "80.00", "1.90")
    ]


def test_page_is_one_document_with_a_bar_per_row_and_nothing_from_elsewhere():
    text = comparison_html(report((*OURS, row("by <hand>", 31, 0.8))))
    assert "by &lt;hand&gt;" in text
    assert "<hand>" not in text
    assert not re.search(r"(src|href)=", text)
    chart = ElementTree.fromstring(re.search(r"<svg.*?</svg>", text, re.DOTALL)[0])
    assert len(chart.findall("{http://www.w3.org/2000/svg}rect")) == 5


def test_a_row_far_out_is_cut_and_keeps_its_number():
    rows = [
        RatioBar(name, ratio, 0.9 * ratio, 1.1 * ratio, ours=False) for name, ratio in (("a", 1), ("b", 2), ("c", 900))
    ]
    chart = ElementTree.fromstring(ratio_bars(rows))
    ends = [float(bar.get("x")) + float(bar.get("width")) for bar in chart.findall("{http://www.w3.org/2000/svg}rect")]
    assert ends[0] < ends[1] < ends[2] < 720
    assert "900.00 (810.00 to 990.00)" in ratio_bars(rows)
