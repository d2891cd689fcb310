"""fcn-bench predict as a user meets it."""

from __future__ import annotations

import json
import re

import onnx
import pytest

from fcnedge.benchmarks import cli, predict_page
from fcnedge.benchmarks.devices.graph_builder import GraphBuilder
from fcnedge.benchmarks.predict import PredictOptions, predict


def run(*words: object) -> int:
    try:
        return cli.main(["predict", *(str(word) for word in words)])
    except SystemExit as exit_:
        return exit_.code if isinstance(exit_.code, int) else 1


@pytest.fixture
def model(tmp_path):
    g = GraphBuilder(320, 512)
    x = g.conv(g.conv(g.picture, 64, 3, 2), 64, 3, 2)
    onnx.save(g.model(g.conv(g.depthwise(x), 21, act=None)), tmp_path / "net.onnx")
    return tmp_path / "net.onnx"


def test_prediction_is_printed_and_written(capsys, tmp_path, model):
    assert run(model, "--device", "orin-nano", "--json", tmp_path / "r.json", "--html", tmp_path / "r.html") == 0
    out, error = capsys.readouterr()
    assert error == ""
    data = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    found = data["forecast"]
    assert out.startswith(
        "net (net.onnx, fp16) at 512x320, frames of 1280x720, on Jetson Orin Nano 8 GB, 15 W: predicted"
    )
    assert f"{len(found['layers'])} kernels" in out
    assert "as if all of it were compiled in FP16" in out
    assert [each["layer"]["operation"] for each in found["layers"]] == ["Conv", "Conv", "depthwise Conv", "Conv"]
    assert found["layers"][2]["unit"] == "CUDA cores"
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "Predicted from the graph and data sheets, not measured." in page
    assert page.count("<circle") == 4
    assert 'src="' not in page
    assert "<script" not in page


def test_a_bundle_gives_its_graph_of_that_precision(colour_bundle):
    report = predict(PredictOptions(str(colour_bundle), "agx-orin"))
    assert (report.model, report.graph) == ("colours", "model.fp16.onnx")
    report = predict(PredictOptions(str(colour_bundle), "agx-orin", precision="int8"))
    assert report.graph == "model.fp32.onnx"
    assert any("holds no int8 graph" in note for note in report.notes)


def test_int8_on_a_board_without_it_is_predicted_in_fp16(model, colour_bundle):
    report = predict(PredictOptions(str(model), "nano", precision="int8"))
    assert {each.precision for each in report.forecast.layers} == {"fp16"}
    report = predict(PredictOptions(str(colour_bundle), "nano", precision="int8"))
    assert report.graph == "model.fp16.onnx"
    assert any("Jetson Nano computes INT8 no faster than FP16" in note for note in report.notes)


def test_another_size_takes_in_proportion(model):
    small = predict(PredictOptions(str(model), "nano"))
    large = predict(PredictOptions(str(model), "nano", size=(640, 1024)))
    assert large.forecast.size == (640, 1024)
    assert large.multiply_adds == 4 * small.multiply_adds
    assert large.reaches == small.reaches  # the aspect is the same


def test_a_neighbours_share_is_said(model):
    text = predict(PredictOptions(str(model), "thor")).text()
    assert "no published time of a network like these was found for blackwell; the share is ampere's" in text


def test_an_unknown_operation_is_said(tmp_path):
    g = GraphBuilder(64, 64)
    onnx.save(g.model(g.conv(g.picture, 16, act="Softplus")), tmp_path / "net.onnx")
    assert (
        "because what they compute is not known: Softplus"
        in predict(PredictOptions(str(tmp_path / "net.onnx"), "nano")).text()
    )


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ((), "--device is missing; name one of nano, "),
        (("--device", "orin"), "--device is 'orin'; the devices are nano, .*did you mean orin-n"),
        (("--device", "nano", "--fps", "0"), "--fps is 0; it must be more than 0."),
        (("--device", "nano", "--fps", "nan"), "--fps is nan; it must be more than 0."),
        (("--device", "nano", "--precision", "fp8"), "invalid choice: 'fp8'"),
    ],
    ids=lambda value: " ".join(value) or "nothing" if isinstance(value, tuple) else "",
)
def test_mistakes_are_one_line(capsys, model, words, complaint):
    assert run(model, *words) == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert re.search(complaint, error)
    assert error.count("\n") == 1


def test_a_model_that_is_not_there(capsys, tmp_path):
    assert run(tmp_path / "gone.onnx", "--device", "nano") == 2
    assert "there is no model" in capsys.readouterr().err


def test_check_prints_the_published_times(capsys, tmp_path):
    assert run("--check", "--json", tmp_path / "c.json") == 0
    out = capsys.readouterr().out
    data = json.loads((tmp_path / "c.json").read_text(encoding="utf-8"))
    assert re.search(r"^vgg16 +nano +fp16 +224x224 +85\.10 ", out, flags=re.MULTILINE)
    errors = [abs(row["error"]) for row in data["rows"] if row["use"] == "check"]
    assert data["worst"] == pytest.approx(max(errors))
    assert all(row["error"] == pytest.approx(row["predicted_ms"] / row["published_ms"] - 1) for row in data["rows"])


def test_html_of_the_check_is_refused(capsys, tmp_path):
    assert run("--check", "--html", tmp_path / "c.html") == 2
    assert "--html" in capsys.readouterr().err


def test_the_page_has_the_tables_of_the_script(monkeypatch):
    monkeypatch.setattr("sys.argv", ["predict_page.py", "--check"])
    assert predict_page.main() == 0


def test_a_page_with_an_old_number_is_noticed_and_rewritten(tmp_path, monkeypatch):
    whole = predict_page.PAGE.read_text(encoding="utf-8")
    page = tmp_path / "predict.md"
    page.write_text(whole.replace("| 85.10 |", "| 58.10 |"), encoding="utf-8")
    monkeypatch.setattr(predict_page, "PAGE", page)
    monkeypatch.setattr("sys.argv", ["predict_page.py", "--check"])
    assert predict_page.main() == 3
    monkeypatch.setattr("sys.argv", ["predict_page.py"])
    assert predict_page.main() == 0
    assert page.read_text(encoding="utf-8") == whole
