from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from fcnedge.build_engine.verify_pictures import read_verify_pictures
from fcnedge.runtime import Bundle, Segmenter
from fcnedge.runtime.preprocessing import fit_frame

FORMS = [("fp32", None), ("fp16", None), ("int8", None), ("int8", "vnni")]


def words_for(precision: str, target: str | None) -> list[str]:
    return ["--precision", precision, *(["--target", target] if target else [])]


@pytest.mark.parametrize(("precision", "target"), FORMS)
def test_labels_are_the_graphs_scores_compared(
    typed_bundle, pictures, tools, expect_labels, precision, target, tmp_path: Path
):
    tools.export("onnx", typed_bundle.path, "-o", tmp_path / "m.onnx", *words_for(precision, target))
    labels = np.concatenate([tools.run(tmp_path / "m.onnx", picture[None]) for picture in pictures])
    expect_labels(labels, pictures, typed_bundle.model(precision, target))
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]


def test_file_is_whole_and_valid_onnx_of_opset_17(typed_bundle, tools, tmp_path: Path):
    tools.export("onnx", typed_bundle.path, "-o", tmp_path / "m.onnx", "--json", tmp_path / "said.json")
    model = onnx.load(tmp_path / "m.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert {each.domain: each.version for each in model.opset_import}[""] == 17
    assert [value.name for value in (*model.graph.input, *model.graph.output)] == ["image", "labels"]
    said = json.loads((tmp_path / "said.json").read_text(encoding="utf-8"))
    assert (said["kind"], said["graph"], len(said["not_carried"])) == ("onnx", "model.fp32.onnx", 2)


@pytest.mark.parametrize("layout", ["nhwc", "nchw"])
@pytest.mark.parametrize("floats", [False, True])
def test_layout_and_type_of_the_input_change_no_label(typed_bundle, pictures, tools, layout, floats, tmp_path: Path):
    tools.export("onnx", typed_bundle.path, "-o", tmp_path / "plain.onnx")
    flags = ["--layout", layout, *(["--float-input"] if floats else [])]
    tools.export("onnx", typed_bundle.path, "-o", tmp_path / "other.onnx", *flags)
    given = pictures[:1].transpose(0, 3, 1, 2) if layout == "nchw" else pictures[:1]
    got = tools.run(tmp_path / "other.onnx", given.astype(np.float32) if floats else given)
    assert np.array_equal(got, tools.run(tmp_path / "plain.onnx", pictures[:1]))


def test_openvino_runs_it_to_the_same_labels(typed_bundle, pictures, tools, expect_labels, tmp_path: Path):
    openvino = pytest.importorskip("openvino", reason="OpenVINO is not installed; pip install 'fcnedge[openvino]'")
    tools.export("onnx", typed_bundle.path, "-o", tmp_path / "m.onnx")
    hints = {"INFERENCE_PRECISION_HINT": "f32"}
    model = openvino.Core().compile_model(str(tmp_path / "m.onnx"), "CPU", hints)
    labels = np.concatenate([model(picture[None])[0] for picture in pictures])
    expect_labels(labels, pictures, typed_bundle.model("fp32"))


def test_bundle_that_ends_in_labels_already_is_exported_too(labels_bundle, typed_bundle, pictures, tools, tmp_path):
    tools.export("onnx", labels_bundle.path, "-o", tmp_path / "again.onnx")
    again = tools.run(tmp_path / "again.onnx", pictures[:1])
    assert np.array_equal(again, tools.run(labels_bundle.model(), pictures[:1]))


def test_taken_and_impossible_outputs_are_refused(typed_bundle, tools, capsys, tmp_path: Path):
    output = tmp_path / "m.onnx"
    tools.export("onnx", typed_bundle.path, "-o", output)
    before = output.read_bytes()
    assert "add --force" in tools.refusal(capsys, "onnx", typed_bundle.path, "-o", output)
    tools.export("onnx", typed_bundle.path, "-o", output, "--force", "--precision", "fp16")
    assert output.read_bytes() != before
    (tmp_path / "big.onnx.data").touch()
    said = tools.refusal(capsys, "onnx", typed_bundle.path, "-o", tmp_path / "big.onnx")
    assert "big.onnx.data exists already" in said
    (tmp_path / "folder.onnx").mkdir()
    said = tools.refusal(capsys, "onnx", typed_bundle.path, "-o", tmp_path / "folder.onnx", "--force")
    assert "is a folder" in said
    assert "ends in .onnx" in tools.refusal(capsys, "onnx", typed_bundle.path, "-o", tmp_path / "m.pb")
    said = tools.refusal(capsys, "onnx", typed_bundle.path, "-o", output / "m.onnx")
    assert "is a file, so nothing can lie in it" in said


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_shipped_model_gives_the_segmenters_labels_on_photographs(shipped_bundle, tools, precision, tmp_path: Path):
    """Wherever the best score leads the second by more than 1e-4 of their range: the issue's margin."""
    tools.export("onnx", shipped_bundle, "-o", tmp_path / "m.onnx", "--precision", precision)
    bundle = Bundle.load(shipped_bundle)
    manifest = bundle.manifest
    size = (manifest.input.height, manifest.input.width)
    session = onnxruntime.InferenceSession(str(tmp_path / "m.onnx"), providers=["CPUExecutionProvider"])
    scores_of = onnxruntime.InferenceSession(str(bundle.model(precision)), providers=["CPUExecutionProvider"])
    # its INT8 on a CPU with VNNI is another graph, which rounds otherwise
    with Segmenter(shipped_bundle, "onnxruntime", "fp32") as segment:
        for _, photograph in read_verify_pictures(None):
            picture, _ = fit_frame(photograph, size, "stretch")
            labels = session.run(None, {"image": picture[None]})[0][0]
            scores = scores_of.run(None, {"image": picture[None]})[0][0]
            full = tools.upsampled(scores, size, manifest.head.stride, manifest.head.offset)
            clear = tools.clear(full)
            assert clear.mean() > 0.99
            assert np.array_equal(labels[clear], full.argmax(axis=0)[clear])
            if precision == "fp32":
                assert np.array_equal(labels[clear], segment(picture)[clear])
