"""fcn-bench report: real measurements, written with --json, put together in one page."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from fcnedge.benchmarks import cli
from fcnedge.benchmarks.report.accuracy_html import accuracy_html
from fcnedge.benchmarks.report.accuracy_report import AccuracyReport
from fcnedge.benchmarks.report.reading import restored


@pytest.fixture(scope="module")
def measured(tmp_path_factory, colour_bundle, voc_folder) -> tuple[Path, Path]:
    """Give (latency.json, accuracy.json) of a short run each."""
    folder = tmp_path_factory.mktemp("measured")
    latency = ["latency", "--model", colour_bundle, "--backend", "onnxruntime", "--frames", "20", "--source", "demo://"]
    accuracy = ["accuracy", colour_bundle, "--data", voc_folder, "--subset", "bicycle", "--backend", "onnxruntime"]
    paths = (folder / "latency.json", folder / "accuracy.json")
    for words, path in zip((latency, accuracy), paths, strict=True):
        assert cli.main([str(word) for word in (*words, "--threads", 1, "--json", path)]) == 0
    return paths


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str]:
    capsys.readouterr()
    code = cli.main(["report", *(str(word) for word in words)])
    return code, capsys.readouterr().err


def test_page_and_markdown_hold_every_report(measured, capsys, tmp_path):
    code, error = run(capsys, *measured, "--html", tmp_path / "r.html", "--markdown", tmp_path / "r.md")
    assert (code, error) == (0, "")
    html = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert html.count("<html") == 1
    assert [f'href="#part{number}"' in html for number in (1, 2, 3)] == [True, True, False]
    assert [f'aria-label="{chart}"' in html for chart in ("bars", "histogram", "timeline", "scatter")] == [True] * 4
    text = (tmp_path / "r.md").read_text(encoding="utf-8")
    assert text.index("| end_to_end |") < text.index("| 96x96 letterbox | fp16 |")


def test_page_of_one_report_is_the_one_that_measuring_writes(measured, capsys, tmp_path):
    assert run(capsys, measured[1], "--html", tmp_path / "r.html") == (0, "")
    data = json.loads(measured[1].read_text(encoding="utf-8"))
    html = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert html == accuracy_html(restored(AccuracyReport, data))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"tool": "time"}, r"is no report of fcn-bench latency, fcn-bench accuracy"),
        ({"tool": ["fcn-bench latency"]}, r"is no report of fcn-bench latency"),
        ({"format": 99}, r"has format 99, this fcnedge reads format 1 of fcn-bench latency; measure again"),
        ({"stages": {"compute": 3}}, r"is damaged or was edited \(the report\.stages\.compute is not what it should"),
    ],
)
def test_file_of_another_kind_is_refused_in_one_sentence(measured, capsys, tmp_path, change, complaint):
    data = json.loads(measured[0].read_text(encoding="utf-8")) | change
    (tmp_path / "r.json").write_text(json.dumps(data), encoding="utf-8")
    code, error = run(capsys, tmp_path / "r.json", "--html", tmp_path / "r.html")
    assert code == 2
    assert error.count("\n") == 1
    assert re.search(complaint, error)
    assert not (tmp_path / "r.html").exists()


def test_report_needs_a_place_to_go(measured, capsys):
    assert run(capsys, *measured) == (
        2,
        "fcn-bench report: a report needs a place to go; name one with --html or --markdown.\n",
    )
